use proptest::prelude::*;

use super::*;

const ID: &str = "3f4e8c1d9a7b2e6f5c0d1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d5e6f";
const UID: &str = "1b9d6bcd-bbfd-4b2d-9b5d-ab8dfbbd4bed";
const HASH: &str = "6ab5c7d8e9f00112233445566778899a";

/// The name of a pod, its uid, and the workload with its kind. The node is `Node-1.example.org`.
#[rustfmt::skip]
const WORKLOADS: &[(&str, Option<&str>, &str, Option<WorkloadKind>)] = &[
    // Deployments, with hashes of clusters.
    ("nginx-deployment-66b6c48dd5-7l6tm", Some(UID), "nginx-deployment", Some(WorkloadKind::Deployment)),
    ("coredns-558bd4d5db-2xkzw", Some(UID), "coredns", Some(WorkloadKind::Deployment)),
    ("web-957c9d6ff-pkzgw", Some(UID), "web", Some(WorkloadKind::Deployment)),
    ("web-957c9d6ff-pkzgw", None, "web", Some(WorkloadKind::Deployment)),
    ("a.b-7bf8d8b4f4-x2q9p", Some(UID), "a.b", Some(WorkloadKind::Deployment)),
    // Not the hash of a template: 1, 2, 3 and 0 never occur in it, and neither does g.
    ("web-1234567890-pkzgw", Some(UID), "web-1234567890", None),
    ("web-ghjklmnpqr-pkzgw", Some(UID), "web-ghjklmnpqr", None),
    // A random end alone has no kind.
    ("kube-proxy-6xsx9", Some(UID), "kube-proxy", None),
    ("migrate-db-2-x4v7z", Some(UID), "migrate-db-2", None),
    ("backup-bcd-hv5qz", Some(UID), "backup-bcd", None),
    // Vowels never occur in a random end.
    ("web-alpha", Some(UID), "web-alpha", None),
    ("kafka-queue", Some(UID), "kafka-queue", None),
    // CronJobs.
    ("report-29123456-x8k2v", Some(UID), "report", Some(WorkloadKind::CronJob)),
    ("report-2912345-x8k2v", Some(UID), "report-2912345", None),
    // StatefulSets.
    ("postgres-0", Some(UID), "postgres", Some(WorkloadKind::StatefulSet)),
    ("postgres-ha-17", Some(UID), "postgres-ha", Some(WorkloadKind::StatefulSet)),
    ("postgres-017", Some(UID), "postgres-017", None),
    ("-0", Some(UID), "-0", None),
    // Static pods: the uid is a hash, and the name ends in that of the node.
    ("kube-apiserver-node-1.example.org", Some(HASH), "kube-apiserver", Some(WorkloadKind::StaticPod)),
    ("kube-apiserver-node-1", Some(HASH), "kube-apiserver", Some(WorkloadKind::StaticPod)),
    ("kube-apiserver-node-1", None, "kube-apiserver", Some(WorkloadKind::StaticPod)),
    ("kube-apiserver-other", Some(HASH), "kube-apiserver-other", Some(WorkloadKind::StaticPod)),
    ("kube-apiserver-node-1", Some(UID), "kube-apiserver-node", Some(WorkloadKind::StatefulSet)),
    // Others.
    ("busybox", Some(UID), "busybox", None),
    ("x2q9p", Some(UID), "x2q9p", None),
];

#[test]
fn workloads_are_derived_from_the_form_of_names() {
    for &(pod, uid, name, kind) in WORKLOADS {
        let names = PodNames::new("shop", pod, uid, "Node-1.example.org").unwrap();
        assert_eq!((names.workload(), names.workload_kind()), (name, kind), "{pod}");
        assert_eq!((names.namespace(), names.pod()), ("shop", pod));
        assert_eq!(names.qualified_pod(), format!("shop/{pod}"));
        assert_eq!(names.qualified_workload(), format!("shop/{name}"));
    }
}

#[test]
fn a_generated_name_of_the_maximum_length_may_lack_its_last_dash() {
    let derived = |base: &str| {
        let pod = format!("{}x2q9p", &base[..58]);
        let names = PodNames::new("shop", &pod, Some(UID), "node").unwrap();
        (names.workload().to_owned(), names.workload_kind())
    };
    let long = "a".repeat(47);
    assert_eq!(derived(&format!("{long}-66b6c48dd5-")), (long, Some(WorkloadKind::Deployment)));
    let longer = "a".repeat(60);
    assert_eq!(derived(&longer), ("a".repeat(58), None));
}

#[test]
fn logs_of_containers_are_parsed() {
    let log = |pod, namespace, container| Some(ContainerLog { pod, namespace, container, id: ID });
    for (name, expected) in [
        (format!("web-0_shop_nginx-{ID}.log"), log("web-0", "shop", "nginx")),
        (format!("a.b-0_kube-system_side-car-{ID}.log"), log("a.b-0", "kube-system", "side-car")),
        (format!("web-0_shop_nginx-{}.log", &ID[1..]), None),
        (format!("web-0_shop_nginx-{ID}"), None),
        (format!("web-0_nginx-{ID}.log"), None),
        (format!("web-0_shop_a_b-{ID}.log"), None),
        (format!("web-0_shop_-{ID}.log"), None),
        ("_.log".to_owned(), None),
        (String::new(), None),
    ] {
        assert_eq!(ContainerLog::parse(&name), expected, "{name}");
    }
}

#[test]
fn folders_of_pods_are_parsed() {
    let folder = |namespace, pod, uid| Some(PodFolder { namespace, pod, uid });
    for (name, expected) in [
        (format!("shop_web-0_{UID}"), folder("shop", "web-0", UID)),
        (format!("kube-system_etcd-node-1_{HASH}"), folder("kube-system", "etcd-node-1", HASH)),
        (UID.to_owned(), None),
        (format!("shop_{UID}"), None),
        (format!("shop_web_0_{UID}"), None),
        (String::new(), None),
    ] {
        assert_eq!(PodFolder::parse(&name), expected, "{name}");
    }
}

#[test]
fn names_that_kubernetes_does_not_allow_are_refused() {
    for name in ["", "Web", "a_b", "a/b", "a b", "\u{1b}[31m", &"a".repeat(254)] {
        assert_eq!(PodNames::new(name, "web", None, ""), None, "{name}");
        assert_eq!(PodNames::new("shop", name, None, ""), None, "{name}");
    }
    assert!(PodNames::new("shop", &"a".repeat(253), None, "").is_some());
}

proptest! {
    #[test]
    fn any_text_is_parsed_or_refused(name in "\\PC{0,80}", pod in "[a-z0-9.-]{1,80}", node in "\\PC{0,20}") {
        let _ = (ContainerLog::parse(&name), PodFolder::parse(&name));
        for uid in [None, Some(UID), Some(HASH)] {
            let names = PodNames::new("shop", &pod, uid, &node).unwrap();
            prop_assert!(!names.workload().is_empty());
            prop_assert!(names.pod().starts_with(names.workload()));
        }
        if let Some(names) = PodNames::new(&name, &name, None, &node) {
            prop_assert!(names.pod().is_ascii() && !names.pod().contains('/'));
        }
    }
}
