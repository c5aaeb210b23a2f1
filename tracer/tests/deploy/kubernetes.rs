//! The manifests for kustomize, and the Helm chart: equal to each other, to the systemd unit and to the Prometheus rules.
//!
//! Two tests also render with `kubectl` and `helm` where these are installed. The others need only the files.

use std::{
    collections::BTreeSet,
    env, fs,
    io::ErrorKind,
    process::{Command, Stdio},
};

use clap::CommandFactory as _;
use serde::Deserialize as _;
use serde_json::{Value, json};
use tcptrace_bpf::cli::Cli;

use crate::{read, root, tool};

const KUBERNETES: &str = "deploy/kubernetes";
const BASE: &str = "deploy/kubernetes/base";
const CHART: &str = "deploy/helm/tcptrace-bpf";
const DAEMON_SET: &str = "deploy/kubernetes/base/daemon-set.yaml";
const COMPONENTS: [&str; 4] = ["critical-pods-quota", "other-namespaces", "service-monitor", "rules"];
const RULES: [&str; 2] = ["alerting", "recording"];

/// Parses a YAML file of one document.
fn yaml(name: &str) -> Value {
    serde_norway::from_str(&read(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Parses the output of a renderer.
fn documents(text: &str) -> Vec<Value> {
    serde_norway::Deserializer::from_str(text)
        .map(|document| Value::deserialize(document).unwrap_or_else(|error| panic!("{error}: {text}")))
        .filter(|document| !document.is_null())
        .collect()
}

/// Returns the only document of a kind.
fn of_kind<'a>(documents: &'a [Value], kind: &str) -> &'a Value {
    let found: Vec<_> = documents.iter().filter(|it| it["kind"] == kind).collect();
    assert_eq!(found.len(), 1, "{kind}: {found:#?}");
    found[0]
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Returns the value of a setting of the systemd unit.
fn unit_setting(file: &str, name: &str) -> String {
    let unit = read(file);
    let value = unit.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    value.unwrap_or_else(|| panic!("{file} has no {name}")).to_owned()
}

/// Returns whether a program can be started.
fn installed(program: &str) -> bool {
    match Command::new(program).stdout(Stdio::null()).stderr(Stdio::null()).status() {
        Ok(_) => true,
        Err(error) if error.kind() == ErrorKind::NotFound => {
            eprintln!("not rendered: {program} is not installed");
            false
        }
        Err(error) => panic!("{program}: {error}"),
    }
}

/// Compares a generated file, or writes it if `UPDATE_DEPLOY` is set.
fn require(name: &str, expected: &str) {
    if env::var_os("UPDATE_DEPLOY").is_some() {
        fs::write(root().join(name), expected).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
    assert!(read(name) == expected, "{name} is out of date: UPDATE_DEPLOY=1 cargo test --test deploy");
}

#[test]
fn the_rules_are_those_of_prometheus() {
    for kind in RULES {
        let source = format!("deploy/prometheus/{kind}.rules.yaml");
        let rules = read(&source);
        require(&format!("{CHART}/files/{kind}.rules.yaml"), &rules);
        let mut manifest = format!(
            "# Generated from {source}: UPDATE_DEPLOY=1 cargo test --test deploy\n\
             apiVersion: monitoring.coreos.com/v1\n\
             kind: PrometheusRule\n\
             metadata:\n  \
               name: tcptrace-bpf-{kind}\n  \
               namespace: tcptrace-bpf\n  \
               labels:\n    \
                 app.kubernetes.io/name: tcptrace-bpf\n\
             spec:\n"
        );
        for line in rules.lines() {
            if !line.is_empty() {
                manifest.push_str("  ");
            }
            manifest.push_str(line);
            manifest.push('\n');
        }
        let name = format!("{KUBERNETES}/components/rules/{kind}.yaml");
        require(&name, &manifest);
        let source: Value = serde_norway::from_str(&rules).unwrap();
        assert_eq!(yaml(&name)["spec"], source);
    }
}

#[test]
fn every_kustomization_lists_its_files() {
    let folders = COMPONENTS.iter().map(|name| format!("{KUBERNETES}/components/{name}"));
    for folder in folders.chain([BASE.to_owned()]) {
        let kustomization = yaml(&format!("{folder}/kustomization.yaml"));
        let mut listed: BTreeSet<&str> = texts(&kustomization["resources"]).into_iter().collect();
        for generator in kustomization["configMapGenerator"].as_array().into_iter().flatten() {
            listed.extend(texts(&generator["files"]));
        }
        listed.insert("kustomization.yaml");
        let found: BTreeSet<String> = fs::read_dir(root().join(&folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        assert_eq!(found, listed.into_iter().map(str::to_owned).collect(), "{folder}");
    }
    let components: BTreeSet<_> = fs::read_dir(root().join(KUBERNETES).join("components"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(components, COMPONENTS.map(str::to_owned).into());
}

#[test]
fn the_pod_has_the_privileges_and_limits_of_the_unit() {
    let unit = "deploy/systemd/tcptrace-bpf.service";
    let set = yaml(DAEMON_SET);
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    let capabilities = &container["securityContext"]["capabilities"];
    let added: Vec<_> = texts(&capabilities["add"]).iter().map(|name| format!("CAP_{name}")).collect();
    assert_eq!(added.join(" "), unit_setting(unit, "AmbientCapabilities"));
    assert_eq!(capabilities["drop"], json!(["ALL"]));
    assert_eq!(
        container["resources"]["limits"],
        json!({ "memory": format!("{}i", unit_setting(unit, "MemoryMax")) })
    );

    let component = yaml(&format!("{KUBERNETES}/components/other-namespaces/kustomization.yaml"));
    let patch: Value = serde_norway::from_str(component["patches"][0]["patch"].as_str().unwrap()).unwrap();
    let drop_in = unit_setting("deploy/systemd/other-namespaces.conf", "AmbientCapabilities");
    assert_eq!(format!("CAP_{}", patch[0]["value"].as_str().unwrap()), drop_in);
}

#[test]
fn the_pod_is_hardened() {
    let set = yaml(DAEMON_SET);
    let pod = &set["spec"]["template"]["spec"];
    let containers = pod["containers"].as_array().unwrap();
    assert_eq!((containers.len(), &pod["initContainers"]), (1, &Value::Null));
    let mut security = containers[0]["securityContext"].clone();
    security.as_object_mut().unwrap().remove("capabilities");
    let expected = json!({
        "runAsUser": 0,
        "runAsGroup": 0,
        "privileged": false,
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "seccompProfile": { "type": "RuntimeDefault" },
        "appArmorProfile": { "type": "Unconfined" },
        "seLinuxOptions": { "type": "spc_t", "level": "s0" },
    });
    assert_eq!(security, expected);
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(pod["enableServiceLinks"], false);
    assert_eq!(pod["hostIPC"], Value::Null);
    for mount in containers[0]["volumeMounts"].as_array().unwrap() {
        assert_eq!(mount["readOnly"], true, "{mount}");
        // Host paths are where they are on the host.
        let volume = pod["volumes"].as_array().unwrap().iter().find(|it| it["name"] == mount["name"]);
        let path = &volume.unwrap()["hostPath"]["path"];
        assert!(path.is_null() || *path == mount["mountPath"], "{mount}");
    }
    let account = yaml(&format!("{BASE}/service-account.yaml"));
    assert_eq!(account["automountServiceAccountToken"], false);
}

#[test]
fn the_command_line_and_the_configuration_are_valid() {
    let set = yaml(DAEMON_SET);
    let container = &set["spec"]["template"]["spec"]["containers"][0];
    let words = ["tcptrace-bpf"].into_iter().chain(texts(&container["args"]));
    let matches = Cli::command().try_get_matches_from(words).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(matches.subcommand_name(), Some("serve"));

    let name = format!("{BASE}/tcptrace-bpf.toml");
    let output = Command::new(env!("CARGO_BIN_EXE_tcptrace-bpf"))
        .args(["serve", "--check", "--config"])
        .arg(root().join(&name))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let port = container["ports"][0]["containerPort"].as_u64().unwrap();
    assert_eq!(yaml(&format!("{BASE}/service.yaml"))["spec"]["ports"][0]["port"], port);
    let configuration = read(&name);
    assert!(configuration.contains(&format!("listen = [\"0.0.0.0:{port}\"]")), "{configuration}");
    let values = yaml(&format!("{CHART}/values.yaml"));
    assert_eq!(values["port"], port);
    for setting in values["config"].as_str().unwrap().lines() {
        assert!(configuration.lines().any(|line| line == setting), "{setting}");
    }
}

#[test]
fn the_chart_has_the_version_of_the_program() {
    let chart = yaml(&format!("{CHART}/Chart.yaml"));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"));
    assert_eq!(chart["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn the_schema_has_every_value_of_the_chart() {
    fn compare(place: &str, values: &Value, schema: &Value) {
        let (Some(values), Some(properties)) = (values.as_object(), schema["properties"].as_object()) else {
            return;
        };
        assert_eq!(schema["additionalProperties"], false, "{place}");
        let known: BTreeSet<_> = properties.keys().filter(|key| *key != "global").collect();
        // `resources` may have more kinds than the defaults.
        assert_eq!(values.keys().collect::<BTreeSet<_>>(), known, "{place}");
        for (key, value) in values {
            compare(&format!("{place}.{key}"), value, &properties[key]);
        }
    }
    let schema: Value = serde_json::from_str(&read(&format!("{CHART}/values.schema.json"))).unwrap();
    compare("values", &yaml(&format!("{CHART}/values.yaml")), &schema);
}

/// Returns the chart's daemon set with the default values, as far as its template has no condition: without the bodies of
/// `if` and `with`, and without the lines that a value or a list of labels replaces.
fn unconditional_daemon_set(values: &Value) -> Value {
    let template = read(&format!("{CHART}/templates/daemon-set.yaml"));
    let mut text = String::new();
    let mut depth = 0;
    for line in template.lines() {
        let bare = line.trim_start();
        if bare.starts_with("{{- if ") || bare.starts_with("{{- with ") {
            depth += 1;
        } else if bare == "{{- end }}" {
            depth -= 1;
        } else if depth == 0 {
            let line = line
                .replace("{{ include \"tcptrace-bpf.name\" . }}", "tcptrace-bpf")
                .replace("{{ include \"tcptrace-bpf.image\" . | quote }}", "tcptrace-bpf")
                .replace(
                    "{{- include \"tcptrace-bpf.check\" . | nindent 12 }}",
                    "httpGet: { path: /readyz, port: metrics }",
                )
                .replace("{{ .Values.port }}", &values["port"].to_string());
            if !line.contains("{{") {
                text.push_str(&line);
                text.push('\n');
            }
        }
    }
    assert_eq!(depth, 0, "{template}");
    serde_norway::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn the_chart_has_the_pod_of_the_base() {
    let values = yaml(&format!("{CHART}/values.yaml"));
    let mut set = unconditional_daemon_set(&values);
    set["spec"]["updateStrategy"] = values["updateStrategy"].clone();
    let pod = &mut set["spec"]["template"]["spec"];
    for key in ["priorityClassName", "nodeSelector", "tolerations"] {
        pod[key] = values[key].clone();
    }
    pod["containers"][0]["resources"] = values["resources"].clone();
    let base = yaml(DAEMON_SET);
    assert_eq!(set["spec"]["updateStrategy"], base["spec"]["updateStrategy"]);
    assert_eq!(set["spec"]["template"]["spec"], base["spec"]["template"]["spec"]);
}

#[test]
fn helm_renders_the_pod_of_the_base() {
    if !installed("helm") {
        return;
    }
    tool("helm", ".", "helm", &["lint", CHART]);
    let text = tool("helm", ".", "helm", &["template", "tcptrace-bpf", CHART]);
    let rendered = documents(&text);
    let mut pod = of_kind(&rendered, "DaemonSet")["spec"]["template"]["spec"].clone();
    let expected = yaml(DAEMON_SET)["spec"]["template"]["spec"].clone();
    assert_eq!(pod["containers"][0]["image"], format!("tcptrace-bpf:{}", env!("CARGO_PKG_VERSION")));
    pod["containers"][0]["image"] = expected["containers"][0]["image"].clone();
    assert_eq!(pod, expected);

    let settings = "otherNamespaces=true,serviceMonitor.enabled=true,prometheusRule.enabled=true,\
                    criticalPodsQuota.enabled=true";
    let text = tool("helm", ".", "helm", &["template", "tcptrace-bpf", CHART, "--set", settings]);
    let rendered = documents(&text);
    let pod = &of_kind(&rendered, "DaemonSet")["spec"]["template"]["spec"];
    let added = texts(&pod["containers"][0]["securityContext"]["capabilities"]["add"]);
    assert_eq!(added.last(), Some(&"SYS_ADMIN"));
    let monitor = yaml(&format!("{KUBERNETES}/components/service-monitor/service-monitor.yaml"));
    assert_eq!(of_kind(&rendered, "ServiceMonitor")["spec"]["endpoints"], monitor["spec"]["endpoints"]);
    for kind in RULES {
        let name = format!("tcptrace-bpf-{kind}");
        let rules = rendered.iter().find(|it| it["metadata"]["name"] == name.as_str()).unwrap();
        assert_eq!(rules["spec"], yaml(&format!("deploy/prometheus/{kind}.rules.yaml")));
    }
}

#[test]
fn kubectl_renders_the_base_with_every_component() {
    if !installed("kubectl") {
        return;
    }
    // Kustomize accepts only relative paths.
    let folder = tempfile::tempdir().unwrap();
    let path = fs::canonicalize(folder.path()).unwrap();
    let up = "../".repeat(path.components().count() - 1);
    let root = format!("{up}{}", root().to_str().unwrap().trim_start_matches('/'));
    let components = COMPONENTS.map(|name| format!("{root}/{KUBERNETES}/components/{name}"));
    let overlay = json!({ "resources": [format!("{root}/{BASE}")], "components": components });
    // JSON is YAML.
    fs::write(path.join("kustomization.yaml"), overlay.to_string()).unwrap();
    let text = tool("kubernetes-client", ".", "kubectl", &["kustomize", path.to_str().unwrap()]);
    let rendered = documents(&text);
    let kinds: Vec<_> = rendered.iter().filter_map(|it| it["kind"].as_str()).collect();
    for kind in ["Namespace", "ServiceAccount", "ConfigMap", "Service", "ResourceQuota", "ServiceMonitor"] {
        let object = of_kind(&rendered, kind);
        assert!(kind == "Namespace" || object["metadata"]["namespace"] == "tcptrace-bpf", "{object:#}");
    }
    assert_eq!(kinds.iter().filter(|kind| **kind == "PrometheusRule").count(), 2, "{kinds:?}");
    let pod = &of_kind(&rendered, "DaemonSet")["spec"]["template"]["spec"];
    let configuration = &of_kind(&rendered, "ConfigMap")["metadata"]["name"];
    assert_eq!(pod["volumes"][0]["configMap"]["name"], *configuration);
    let added = texts(&pod["containers"][0]["securityContext"]["capabilities"]["add"]);
    assert_eq!(added.last(), Some(&"SYS_ADMIN"));
}
