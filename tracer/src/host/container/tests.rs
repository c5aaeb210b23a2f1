use proptest::prelude::*;

use crate::host::container::{CgroupOwner, Runtime, is_hex_id, is_name};

const A: &str = "3f4e8c1d9a7b2e6f5c0d1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f";
const B: &str = "b7d1f0a2c3e4958677685948372615049382716059483726150a9b8c7d6e5f40";
const UID: &str = "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed";

type Case = (&'static str, Option<(Runtime, &'static str)>, Option<&'static str>, Option<&'static str>);

/// Path (`$A`, `$B`: container ids; `$P`: a pod uid; `$S`: the uid in slice form), container, pod, unit.
#[rustfmt::skip]
const CASES: &[Case] = &[
    // Docker: cgroupfs driver, systemd driver, rootless, a custom parent, the Kubernetes shim.
    ("/docker/$A", Some((Runtime::Docker, A)), None, None),
    ("/docker/$A/init", Some((Runtime::Docker, A)), None, None),
    ("/system.slice/docker-$A.scope", Some((Runtime::Docker, A)), None, None),
    ("/user.slice/user-1000.slice/user@1000.service/user.slice/docker-$A.scope", Some((Runtime::Docker, A)), None, Some("user@1000.service")),
    ("/actions_job/$A", Some((Runtime::Unnamed, A)), None, None),
    ("/kubepods.slice/kubepods-pod$S.slice/docker-$A.scope", Some((Runtime::Docker, A)), Some(UID), None),
    // containerd: systemd and cgroupfs drivers, quality-of-service classes, nerdctl.
    ("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod$S.slice/cri-containerd-$A.scope", Some((Runtime::Containerd, A)), Some(UID), None),
    ("/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod$S.slice/cri-containerd-$A.scope", Some((Runtime::Containerd, A)), Some(UID), None),
    ("/kubepods/burstable/pod$P/$A", Some((Runtime::Unnamed, A)), Some(UID), None),
    ("/kubepods/pod$P/$A", Some((Runtime::Unnamed, A)), Some(UID), None),
    ("/kubepods/burstable/pod$P", None, Some(UID), None),
    ("/kubepods/besteffort/pod6ab5c7d8e9f00112233445566778899a/$A", Some((Runtime::Unnamed, A)), Some("6ab5c7d8e9f00112233445566778899a"), None),
    ("/kubepods-burstable-pod$S.slice:cri-containerd:$A", Some((Runtime::Containerd, A)), Some(UID), None),
    ("/system.slice/containerd.service/kubepods-besteffort-pod$S.slice:cri-containerd:$A", Some((Runtime::Containerd, A)), Some(UID), Some("containerd.service")),
    ("/k8s.io/$A", Some((Runtime::Containerd, A)), None, None),
    ("/system.slice/nerdctl-$A.scope", Some((Runtime::Containerd, A)), None, None),
    // CRI-O, with and without the sub-cgroup of crun, and its monitor.
    ("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod$S.slice/crio-$A.scope", Some((Runtime::CriO, A)), Some(UID), None),
    ("/kubepods.slice/kubepods-pod$S.slice/crio-$A.scope/container", Some((Runtime::CriO, A)), Some(UID), None),
    ("/kubepods/besteffort/pod$P/crio-$A", Some((Runtime::CriO, A)), Some(UID), None),
    ("/kubepods.slice/kubepods-pod$S.slice/crio-conmon-$A.scope", None, Some(UID), Some("crio-conmon-$A.scope")),
    ("/kubepods/besteffort/pod$P/crio-conmon-$A", None, Some(UID), None),
    // Podman: root, rootless, cgroupfs, split, in a pod, and its monitor.
    ("/machine.slice/libpod-$A.scope", Some((Runtime::Podman, A)), None, None),
    ("/machine.slice/libpod-$A.scope/container", Some((Runtime::Podman, A)), None, None),
    ("/machine.slice/libpod-conmon-$A.scope", None, None, Some("libpod-conmon-$A.scope")),
    ("/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-$A.scope", Some((Runtime::Podman, A)), None, Some("user@1000.service")),
    ("/user.slice/user-1000.slice/user@1000.service/user.slice/user-libpod_pod_$B.slice/libpod-$A.scope/container", Some((Runtime::Podman, A)), None, Some("user@1000.service")),
    ("/libpod_parent/libpod-$A", Some((Runtime::Podman, A)), None, None),
    ("/libpod_parent/conmon", None, None, None),
    ("/system.slice/web.service/libpod-payload-$A", Some((Runtime::Podman, A)), None, Some("web.service")),
    ("/system.slice/web.service/supervisor", None, None, Some("web.service")),
    // LXC: v2, v1, its monitor, under libvirt; a service inside.
    ("/lxc.payload.web-1", Some((Runtime::Lxc, "web-1")), None, None),
    ("/lxc.payload.default_db/system.slice/postgresql@15-main.service", Some((Runtime::Lxc, "default_db")), None, Some("postgresql@15-main.service")),
    ("/lxc.monitor.web-1", None, None, None),
    ("/lxc/100/ns/init.scope", Some((Runtime::Lxc, "100")), None, Some("init.scope")),
    (r"/machine.slice/machine-lxc\x2d4711\x2dbox.scope/init.scope", Some((Runtime::Lxc, "box")), None, Some("init.scope")),
    // systemd-nspawn; a virtual machine is not a container.
    (r"/machine.slice/machine-debian\x2dtest.scope", Some((Runtime::Nspawn, "debian-test")), None, None),
    ("/machine.slice/machine-build.scope/payload/system.slice/cron.service", Some((Runtime::Nspawn, "build")), None, Some("cron.service")),
    ("/machine.slice/systemd-nspawn@build.service/payload", Some((Runtime::Nspawn, "build")), None, None),
    ("/machine.slice/systemd-nspawn@build.service/supervisor", None, None, Some("systemd-nspawn@build.service")),
    (r"/machine.slice/machine-qemu\x2d1\x2dvm.scope/libvirt/emulator", None, None, Some(r"machine-qemu\x2d1\x2dvm.scope")),
    (r"/machine.slice/machine-a\x2fb.scope", None, None, Some(r"machine-a\x2fb.scope")),
    // Units alone.
    ("/system.slice/nginx.service", None, None, Some("nginx.service")),
    (r"/system.slice/system-getty.slice/getty@tty1.service", None, None, Some("getty@tty1.service")),
    (r"/system.slice/system-modprobe.slice/modprobe@dm\x2dmod.service", None, None, Some(r"modprobe@dm\x2dmod.service")),
    ("/user.slice/user-1000.slice/session-3.scope", None, None, Some("session-3.scope")),
    (r"/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome\x2dterminal.slice/vte-spawn-1.scope", None, None, Some("vte-spawn-1.scope")),
    ("/system.slice/_cpu.service", None, None, Some("cpu.service")),
    ("/init.scope", None, None, Some("init.scope")),
    ("/system.slice", None, None, None),
    // Nested: the innermost is reported.
    ("/docker/$A/docker/$B", Some((Runtime::Docker, B)), None, None),
    ("/system.slice/docker-$A.scope/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod$S.slice/cri-containerd-$B.scope", Some((Runtime::Containerd, B)), Some(UID), None),
    ("/docker/$A/kubelet/kubepods/besteffort/pod$P/$B", Some((Runtime::Unnamed, B)), Some(UID), None),
    ("/docker/$A/system.slice/kubelet.service", Some((Runtime::Docker, A)), None, Some("kubelet.service")),
    ("/lxc.payload.outer/lxc.payload.inner/init.scope", Some((Runtime::Lxc, "inner")), None, Some("init.scope")),
    ("/lxc.payload.host/system.slice/docker-$A.scope", Some((Runtime::Docker, A)), None, None),
    // From another cgroup namespace, and empty paths.
    ("/../../docker/$A", Some((Runtime::Docker, A)), None, None),
    ("/", None, None, None),
    ("", None, None, None),
    ("//docker//$A/", Some((Runtime::Docker, A)), None, None),
    // Similar to a container, but none.
    ("/docker/3f4e8c1d9a7b", None, None, None),
    ("/docker", None, None, None),
    ("/lxc", None, None, None),
    ("/lxc.payload.", None, None, None),
    ("/podinfo/poddle", None, None, None),
    ("/system.slice/.service", None, None, None),
];

fn fill(text: &str) -> String {
    let slice_uid = UID.replace('-', "_");
    text.replace("$A", A).replace("$B", B).replace("$P", UID).replace("$S", &slice_uid)
}

#[test]
fn every_layout_is_recognized() {
    for &(path, container, pod, unit) in CASES {
        let path = fill(path);
        let owner = CgroupOwner::from_path(&path);
        let found = owner.container.as_ref().map(|found| (found.runtime, found.id.as_str()));
        assert_eq!(found, container, "container of {path}");
        assert_eq!(owner.pod_uid.as_deref(), pod, "pod of {path}");
        assert_eq!(owner.unit, unit.map(fill), "unit of {path}");
    }
}

#[test]
fn upper_case_ids_are_ignored() {
    let path = format!("/docker/{}", A.to_uppercase());
    assert_eq!(CgroupOwner::from_path(&path), CgroupOwner::default());
}

/// Strings similar to real paths, so that the parsers reach their later checks.
fn path_like() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just(A.to_owned()),
        Just(format!("docker-{A}.scope")),
        Just("docker".to_owned()),
        Just("lxc".to_owned()),
        "(lxc\\.payload\\.|machine-|systemd-nspawn@|crio-|libpod-|pod|kubepods-pod)\\PC{0,40}",
        "machine-(\\\\x[0-9a-f]{2}|\\\\|[a-z]){0,12}\\.scope",
        "\\PC{0,20}\\.(service|scope|slice)",
        "\\PC*",
    ];
    proptest::collection::vec(part, 0..6).prop_map(|parts| format!("/{}", parts.join("/")))
}

proptest! {
    #[test]
    fn ids_contain_only_allowed_characters(path in prop_oneof![path_like(), any::<String>()]) {
        let owner = CgroupOwner::from_path(&path);
        if let Some(container) = owner.container {
            match container.runtime {
                Runtime::Lxc | Runtime::Nspawn => prop_assert!(is_name(&container.id)),
                _ => prop_assert!(is_hex_id(&container.id)),
            }
        }
        if let Some(uid) = owner.pod_uid {
            prop_assert!(uid.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit()));
        }
        if let Some(unit) = owner.unit {
            prop_assert!(unit.is_ascii() && !unit.contains('/') && unit.len() <= 255);
        }
    }
}
