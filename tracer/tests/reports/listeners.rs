//! The listeners and their table.

use tcptrace_bpf::{
    host::{Cgroup, ListenDrops},
    report::{ListenerDropsRow, ListenerRow, ListenerTable, Palette, TableStyle, TableWidth},
};
use tracer_core::{
    analysis::{
        HandshakeAttempt, HandshakeOutcome, ListenerActivity, ListenerDump, ListenerProcesses,
        ListenerSnapshot,
    },
    event::{AcceptQueue, Endpoint, Nanos, Netns, SocketCookie},
};

use crate::attempts::{MS, US, end, process, served};

const NETNS: Option<Netns> = Some(Netns(4_026_531_840));

fn listener(cookie: u64, local: Endpoint, length: u32, drops: u32) -> ListenerSnapshot {
    ListenerSnapshot {
        cookie: SocketCookie(cookie),
        netns: NETNS,
        local,
        accept_queue: Some(AcceptQueue { length, limit: 128 }),
        drops: Some(drops),
        cgroup_id: None,
    }
}

fn dump(length: u32, drops: u32) -> ListenerDump {
    ListenerDump {
        listeners: vec![
            listener(1, end("0.0.0.0", 22), 0, 0),
            listener(2, end("0.0.0.0", 443), length, drops),
            listener(3, end("2001:db8::1", 8080), 1, 0),
            listener(4, end("2001:db8::1", 8080), 3, 0),
        ],
        half_open: [((NETNS, end("192.0.2.10", 443)), 7)].into_iter().collect(),
        complete: [NETNS].into_iter().collect(),
        half_open_complete: [NETNS].into_iter().collect(),
    }
}

fn table(style: TableStyle, knows_abandoned: bool) -> String {
    let mut activity = ListenerActivity::new(dump(0, 11));
    activity.dumped(dump(129, 42));
    let local = |attempt| HandshakeAttempt { local: end("192.0.2.10", 443), ..attempt };
    for index in 0..100 {
        activity.handshake(&local(served(443, end("192.0.2.1", 50_000), (300 + index) * US)));
    }
    let abandoned = served(443, end("192.0.2.1", 50_000), 3_000 * MS);
    activity.handshake(&local(HandshakeAttempt { outcome: HandshakeOutcome::Abandoned, ..abandoned }));
    activity.accept_waited((NETNS, end("192.0.2.10", 443)), Nanos(20 * MS));
    activity.owned(SocketCookie(1), process(1, "systemd"));
    activity.owned(SocketCookie(2), process(4711, "nginx\u{1b}[31m"));
    let path = "/system.slice/nginx.service";
    let cgroup = Cgroup::new(path.to_owned());
    let reports = activity.report(&ListenerProcesses::default());
    let counts = ListenDrops {
        listen_overflows: Some(31),
        listen_drops: Some(31),
        syn_queue_full_drops: Some(0),
        syn_cookies_sent: Some(2),
        syn_cookies_received: Some(1),
        syn_cookies_failed: None,
    };
    let table = ListenerTable {
        listeners: reports
            .iter()
            .map(|report| {
                let cgroup = (report.socket.local.port == 443).then_some(&cgroup);
                ListenerRow::new(report, cgroup, knows_abandoned)
            })
            .collect(),
        more: 2,
        drops: vec![
            ListenerDropsRow::new(NETNS, Some(counts)),
            ListenerDropsRow::new(Some(Netns(4_026_532_000)), Some(ListenDrops::default())),
            ListenerDropsRow::new(Some(Netns(4_026_532_001)), None),
        ],
        style,
    };
    let mut text = String::new();
    table.write(&mut text).unwrap();
    text
}

#[test]
fn the_worst_listener_comes_first_with_the_causes_below() {
    insta::assert_snapshot!(table(TableStyle::default(), true));
}

#[test]
fn unknown_figures_are_dashes() {
    let style = TableStyle { width: TableWidth::Wide, ..TableStyle::default() };
    insta::assert_snapshot!(table(style, false));
}

#[test]
fn full_queues_and_drops_are_red_and_untrusted_text_stays_escaped() {
    let style = TableStyle { palette: Palette::new(true), ..TableStyle::default() };
    let (colored, plain) = (table(style, true), table(TableStyle::default(), true));
    assert_eq!(anstream::adapter::strip_str(&colored).to_string(), plain);
    let busy = colored.lines().nth(1).unwrap();
    for red in ["\u{1b}[31m129\u{1b}[0m", "\u{1b}[31m31\u{1b}[0m"] {
        assert!(busy.contains(red), "{red:?} not in {busy:?}");
    }
    assert!(busy.contains("nginx\\x1b[31m (4711)"), "{busy}");
}
