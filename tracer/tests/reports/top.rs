//! The live view: its counts, keys, mouse and screens.

use std::sync::Arc;

use crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use proptest::prelude::*;
use ratatui::{Terminal, backend::TestBackend, layout::Rect, style::Color};
use tcptrace_bpf::{
    host::{Cgroup, CgroupResolver, CgroupSubtree, PodNames, RecordedCgroups},
    report::{ConnectionCgroups, Filter},
    top::{
        ConnectionLine, EdgeLine, Effect, Model, Query, Regions, SavedView, Screen, Settings, Sort, Tab,
        Theme, apply, draw,
    },
};
use tracer_core::{
    analysis::{
        ConnectionCounters, ConnectionDump, ConnectionReadings, ConnectionSnapshot, ListenerDump,
        ListenerSnapshot,
    },
    event::{
        AcceptQueue, ClockOffset, ConnKey, Endpoint, Event as TcpEvent, ExistingSocket, Micros, Nanos, Netns,
        SocketCookie, SourceCounts, TcpState, Timestamp,
    },
    lifecycle::{Tracker, TrackerOptions},
};

use crate::{
    attempts::{MS, SECOND},
    events::{host, observe, socket_events},
};

const BEGIN: u64 = 1_000 * SECOND;

fn model() -> Model {
    Model::new(
        Filter::default(),
        ConnectionCgroups::new(CgroupResolver::recorded(RecordedCgroups::default())),
    )
}

/// A busy listener whose accept queue is full, and an idle one.
fn listeners(drops: u32) -> ListenerDump {
    let netns = Some(Netns(4_026_531_840));
    let listener = |port: u16, length, drops| ListenerSnapshot {
        cookie: SocketCookie(u64::from(port)),
        netns,
        local: Endpoint { address: std::net::Ipv4Addr::UNSPECIFIED.into(), port },
        accept_queue: Some(AcceptQueue { length, limit: 128 }),
        drops: Some(drops),
        cgroup_id: None,
    };
    ListenerDump {
        listeners: vec![listener(22, 0, 0), listener(443, 129, drops)],
        half_open: [((netns, listener(443, 0, 0).local), 7)].into_iter().collect(),
        complete: [netns].into_iter().collect(),
        half_open_complete: [netns].into_iter().collect(),
    }
}

const NOW: Timestamp = Timestamp(BEGIN + 100 * SECOND);

/// Returns two readings of the connections, 2 s apart and the last 400 ms ago. The higher the local port, the more bytes.
fn readings(tracker: &Tracker) -> Arc<ConnectionReadings> {
    let dump = |ago: u64, rounds: u64| {
        let snapshot = |key: ConnKey| {
            let port = u64::from(key.local.port);
            let counters = ConnectionCounters {
                bytes_sent: port * rounds,
                bytes_received: port * rounds * 1000,
                retransmits: 2,
                srtt: Some(Micros(u32::from(key.local.port))),
                min_rtt: Some(Micros(300)),
                unread_bytes: 10,
                unacked_bytes: 2000,
            };
            ConnectionSnapshot { key, read_at: NOW.saturating_sub(Nanos(ago * MS)), counters }
        };
        let connections = tracker.connections().filter(|(_, it)| it.state() != TcpState::SynSent);
        ConnectionDump { connections: connections.map(|(_, it)| snapshot(it.key())).collect(), omitted: 0 }
    };
    Arc::new(ConnectionReadings::default().next(&dump(2400, 1)).next(&dump(400, 3)))
}

fn screen_with(settings: &Settings) -> Screen {
    let mut model = model();
    model.dumped(listeners(100));
    model.dumped(listeners(112));
    let events = host();
    let tracker = observe(&events, |observation| model.observe(&observation));
    model.read(readings(&tracker));
    let source = SourceCounts { seen: events.len() as u64, skipped: Some(0), ..SourceCounts::default() };
    model.screen(&tracker, source, NOW, settings)
}

fn drawn(width: u16, height: u16, settings: &Settings, theme: Theme) -> (Terminal<TestBackend>, Regions) {
    let screen = screen_with(settings);
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    let mut regions = Regions::default();
    terminal.draw(|frame| regions = draw(frame, &screen, settings, theme)).unwrap();
    (terminal, regions)
}

fn text(width: u16, height: u16, settings: &Settings) -> String {
    drawn(width, height, settings, Theme::new(true)).0.backend().to_string()
}

fn on(tab: Tab) -> Settings {
    Settings { tab, ..Settings::default() }
}

/// Returns the settings of a tab with another query.
fn asking(tab: Tab, change: impl FnOnce(&mut Query)) -> Settings {
    let mut settings = on(tab);
    change(settings.query_mut());
    settings
}

/// Returns the settings of a tab that is sorted by this key.
fn by(tab: Tab, sort: Sort) -> Settings {
    asking(tab, |query| query.sort = sort)
}

#[test]
fn common_terminal_sizes() {
    insta::assert_snapshot!("80x24", text(80, 24, &Settings::default()));
    insta::assert_snapshot!("120x40", text(120, 40, &Settings::default()));
    insta::assert_snapshot!("200x60", text(200, 60, &Settings::default()));
    insta::assert_snapshot!("200x24", text(200, 24, &on(Tab::Stuck)));
    insta::assert_snapshot!("listeners_200x24", text(200, 24, &on(Tab::Listeners)));
}

#[test]
fn every_tab_at_the_smallest_size() {
    for (name, tab) in [
        ("connections", Tab::Connections),
        ("owners", Tab::Owners),
        ("handshakes", Tab::Handshakes),
        ("stuck", Tab::Stuck),
        ("listeners", Tab::Listeners),
    ] {
        insta::assert_snapshot!(name, text(80, 24, &on(tab)));
    }
    insta::assert_snapshot!("help", text(80, 24, &Settings { help: true, ..Settings::default() }));
    insta::assert_snapshot!("detail", text(80, 24, &Settings { detail: true, ..on(Tab::Connections) }));
}

#[test]
fn every_size_can_be_drawn() {
    for (width, height) in [(1, 1), (19, 3), (20, 4), (40, 10), (79, 23), (300, 5)] {
        for tab in Tab::ALL {
            let settings = Settings { help: true, detail: true, ..on(tab) };
            let _ = text(width, height, &settings);
        }
    }
}

#[test]
fn the_plain_theme_has_no_colors() {
    let colours = |theme| {
        let (terminal, _) = drawn(120, 40, &Settings::default(), theme);
        terminal.backend().buffer().content().iter().filter(|cell| cell.fg != Color::Reset).count()
    };
    assert_eq!(colours(Theme::new(false)), 0);
    assert!(colours(Theme::new(true)) > 0);
}

#[test]
fn the_screen_shows_the_connections_of_the_host() {
    let screen = screen_with(&Settings::default());
    let live = |state| screen.states.iter().find(|line| line.state == state).unwrap().live;
    assert_eq!((live(TcpState::Established), live(TcpState::CloseWait), live(TcpState::SynSent)), (6, 2, 1));
    assert_eq!((screen.live, screen.matching, screen.connections.len()), (9, 9, 9));
    let owner = &screen.owners[0];
    assert_eq!((owner.count, owner.states[0]), (9, (TcpState::Established, 6)));
    let stuck: Vec<TcpState> = screen.stuck.iter().map(|line| line.state).collect();
    assert_eq!(stuck, [TcpState::SynSent, TcpState::CloseWait, TcpState::CloseWait]);
}

#[test]
fn rates_are_those_of_the_last_second() {
    let mut model = model();
    let mut tracker = Tracker::new(TrackerOptions::default());
    let mut socket = 0;
    let mut second = |model: &mut Model, index: u64, count: u64| {
        for _ in 0..count {
            socket += 1;
            for event in socket_events(socket, TcpState::Closed, &[(index * SECOND, TcpState::SynSent)], 0) {
                tracker.observe(&event, &mut |observation| model.observe(&observation));
            }
        }
        let now = Timestamp(BEGIN + (index + 1) * SECOND);
        let screen = model.screen(&tracker, SourceCounts::default(), now, &Settings::default());
        (screen.edges[0].count, screen.edges[0].per_second, screen.per_second)
    };
    assert_eq!(second(&mut model, 0, 10), (10, 0, 0), "what was before cannot be known");
    assert_eq!(second(&mut model, 1, 30), (40, 30, 30));
    assert_eq!(second(&mut model, 2, 5), (45, 5, 5));
}

#[test]
fn connections_are_sorted_searched_and_filtered() {
    let states = |settings: &Settings| -> Vec<TcpState> {
        screen_with(settings).connections.iter().map(|line| line.state).collect()
    };
    assert_eq!(states(&by(Tab::Connections, Sort::State))[0], TcpState::Established);
    let reversed = asking(Tab::Connections, |query| (query.sort, query.reversed) = (Sort::State, true));
    assert_eq!(states(&reversed)[0], TcpState::CloseWait);
    let only = asking(Tab::Connections, |query| query.state = Some(TcpState::SynSent));
    assert_eq!(states(&only), [TcpState::SynSent]);
    let search =
        |text: &str| screen_with(&asking(Tab::Connections, |query| query.search = text.to_owned())).matching;
    assert_eq!(
        (search("close_wait"), search("ORDERS-api"), search("10.0.0.9:8080"), search("nobody")),
        (2, 9, 7, 0)
    );
    let ages: Vec<_> = screen_with(&Settings::default()).connections.iter().map(|line| line.age).collect();
    assert!(ages.is_sorted_by(|a, b| a >= b), "{ages:?}");
}

#[test]
fn bytes_and_rates_come_from_the_last_two_readings() {
    let screen = screen_with(&by(Tab::Connections, Sort::SentRate));
    let lines = &screen.connections;
    let figures = |line: &ConnectionLine| {
        let reading = line.reading?;
        let rates = reading.rates?;
        Some((reading.counters.bytes_sent, rates.sent, rates.received))
    };
    for line in lines.iter().filter(|line| line.state != TcpState::SynSent) {
        let port = u64::from(line.local.port);
        assert_eq!(figures(line), Some((3 * port, port, 1000 * port)), "{line:?}");
    }
    let ports: Vec<u16> = lines.iter().map(|line| line.local.port).collect();
    assert_eq!(
        ports,
        [20_181, 20_180, 20_179, 20_178, 20_177, 20_176, 443, 443, 0],
        "unknown rates are last"
    );
    assert_eq!(figures(&lines[8]), None, "no reading");
    let owner = &screen.owners[0];
    assert_eq!(owner.sent_rate, Some((20_176..=20_181).sum::<u64>() + 2 * 443));
    assert_eq!(owner.received_rate, owner.sent_rate.map(|rate| 1000 * rate));
    let shown = text(80, 24, &by(Tab::Connections, Sort::SentRate));
    assert!(
        shown.contains("SENT/S") && shown.contains("19.7K") && shown.contains("bytes 0.4s old"),
        "{shown}"
    );
}

/// Both addresses are whole at 80 columns.
#[test]
fn both_addresses_are_shown_at_every_width() {
    for (width, height) in [(80, 24), (120, 40), (200, 60)] {
        for tab in [Tab::Connections, Tab::Stuck] {
            let shown = text(width, height, &on(tab));
            assert!(shown.contains("LOCAL") && shown.contains("REMOTE"), "{shown}");
            assert!(shown.contains("10.0.0.1:443 ") && shown.contains("10.0.0.2:20182 "), "{shown}");
        }
    }
}

#[test]
fn owners_are_sorted_and_filtered() {
    let owners = |settings: &Settings| screen_with(settings).owners;
    let close_wait = owners(&asking(Tab::Owners, |query| query.state = Some(TcpState::CloseWait)));
    assert_eq!((close_wait[0].count, &close_wait[0].states[..]), (2, &[(TcpState::CloseWait, 2)][..]));
    assert_eq!(owners(&asking(Tab::Owners, |query| query.search = "orders".to_owned()))[0].count, 9);
    assert_eq!(owners(&asking(Tab::Owners, |query| query.search = "nobody".to_owned())), []);
    // The connections are not filtered by the query of another tab.
    let other = screen_with(&asking(Tab::Owners, |query| query.search = "nobody".to_owned()));
    assert_eq!((other.connections.len(), other.live), (9, 9));
}

#[test]
fn handshake_groups_are_sorted_and_filtered() {
    let groups = |settings: &Settings| -> Vec<(String, u64, u64)> {
        let lines = screen_with(settings).handshakes;
        lines.into_iter().map(|line| (line.group, line.count, line.failed)).collect()
    };
    let (client, server) = ("10.0.0.9:8080".to_owned(), "port 443 here".to_owned());
    let worst = groups(&on(Tab::Handshakes));
    assert_eq!(worst, [(client.clone(), 61, 8), (server.clone(), 22, 0)]);
    assert_eq!(groups(&by(Tab::Handshakes, Sort::Count)), worst);
    let reversed = asking(Tab::Handshakes, |query| (query.sort, query.reversed) = (Sort::Failed, true));
    assert_eq!(groups(&reversed)[0].0, server);
    assert_eq!(groups(&by(Tab::Handshakes, Sort::Handshake))[0].0, server, "40 ms is longer than 20 ms");
    let search = |text: &str| groups(&asking(Tab::Handshakes, |query| query.search = text.to_owned()));
    assert_eq!(search("443")[0].0, server);
    assert_eq!((search("443").len(), search("refused").len(), search("nobody").len()), (1, 1, 0));
}

#[test]
fn listeners_are_sorted_and_filtered() {
    let ports = |settings: &Settings| -> Vec<u16> {
        screen_with(settings).listeners.unwrap().iter().map(|line| line.local.port).collect()
    };
    assert_eq!(ports(&on(Tab::Listeners)), [443, 22]);
    assert_eq!(ports(&by(Tab::Listeners, Sort::Local)), [22, 443]);
    for sort in [Sort::Queue, Sort::HalfOpen, Sort::Dropped] {
        assert_eq!(ports(&by(Tab::Listeners, sort)), [443, 22], "{sort:?}");
        let reversed = asking(Tab::Listeners, |query| (query.sort, query.reversed) = (sort, true));
        assert_eq!(ports(&reversed), [22, 443], "{sort:?}");
    }
    assert_eq!(ports(&asking(Tab::Listeners, |query| query.search = ":22 ".to_owned())), [22]);
}

#[test]
fn stuck_connections_are_sorted_and_filtered() {
    let stuck = |settings: &Settings| {
        let screen = screen_with(settings);
        (screen.stuck.iter().map(|line| line.state).collect::<Vec<_>>(), screen.beyond_threshold)
    };
    let all = [TcpState::SynSent, TcpState::CloseWait, TcpState::CloseWait];
    assert_eq!(stuck(&on(Tab::Stuck)), (all.to_vec(), 3));
    let reversed = asking(Tab::Stuck, |query| (query.sort, query.reversed) = (Sort::State, true));
    assert_eq!(stuck(&reversed).0[0], TcpState::CloseWait);
    let only = asking(Tab::Stuck, |query| query.state = Some(TcpState::SynSent));
    assert_eq!(stuck(&only), (vec![TcpState::SynSent], 3), "the first line of the screen counts all");
    assert!(text(80, 24, &only).contains("Stuck: 1 of 3 beyond their threshold, SYN_SENT, by age"));
}

#[test]
fn handshakes_per_second_are_those_of_the_group() {
    let mut model = model();
    let mut tracker = Tracker::new(TrackerOptions::default());
    let settings = Settings::default();
    let mut rates = Vec::new();
    for (second, count) in [(0, 2), (1, 7), (2, 3)] {
        for index in 0..count {
            let steps = [(second * SECOND, TcpState::SynSent), (second * SECOND + MS, TcpState::Established)];
            for event in socket_events(second * 10 + index + 1, TcpState::Closed, &steps, 0) {
                tracker.observe(&event, &mut |observation| model.observe(&observation));
            }
        }
        let now = Timestamp(BEGIN + (second + 1) * SECOND);
        let screen = model.screen(&tracker, SourceCounts::default(), now, &settings);
        rates.push((screen.handshakes[0].count, screen.handshakes[0].per_second));
    }
    assert_eq!(rates, [(2, 0), (9, 7), (12, 3)]);
}

/// The state of a connection that existed before began before the start, and the row and its details say so.
#[test]
fn the_row_and_the_details_have_the_same_age() {
    let mut model = model();
    let mut tracker = Tracker::new(TrackerOptions::default());
    let endpoint = |port| Endpoint { address: "10.0.0.1".parse().unwrap(), port };
    let socket = ExistingSocket {
        time: Timestamp(BEGIN),
        cookie: SocketCookie(7),
        state: TcpState::Established,
        state_age: Some(Nanos(30 * SECOND)),
        local: endpoint(1),
        remote: endpoint(2),
        process: None,
        netns: Some(Netns(1)),
        cgroup_id: None,
        info: None,
        interface: None,
    };
    tracker.observe(&TcpEvent::Existing(socket), &mut |observation| model.observe(&observation));
    for event in socket_events(1, TcpState::Closed, &[(0, TcpState::SynSent)], 0) {
        tracker.observe(&event, &mut |observation| model.observe(&observation));
    }
    for (remote, age) in [("10.0.0.1:2", ">2m10s"), ("10.0.0.9:8080", " 1m40s")] {
        let mut settings = asking(Tab::Connections, |query| query.search = remote.to_owned());
        let screen = model.screen(&tracker, SourceCounts::default(), NOW, &settings);
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        for (detail, beside) in [(false, screen.connections[0].state.kernel_name()), (true, " now")] {
            settings.detail = detail;
            terminal.draw(|frame| _ = draw(frame, &screen, &settings, Theme::new(true))).unwrap();
            let shown = terminal.backend().to_string();
            let says_it = |line: &str| line.contains(age) && line.contains(beside);
            assert!(shown.lines().any(says_it), "no {age} beside {beside} in {shown}");
        }
    }
}

#[test]
fn the_last_line_offers_what_works_in_the_tab() {
    for (tab, filters, opens) in [
        (Tab::Connections, true, "Enter open"),
        (Tab::Owners, true, "Enter list"),
        (Tab::Handshakes, false, "Enter list"),
        (Tab::Stuck, true, "Enter open"),
        (Tab::Listeners, false, "Enter list"),
    ] {
        let shown = text(80, 24, &on(tab));
        let keys = shown.lines().last().unwrap();
        assert!(keys.contains(opens) && keys.contains("s sort") && keys.contains("w save"), "{keys}");
        assert!(keys.contains("q quit"), "{keys}");
        assert_eq!(keys.contains("f state"), filters, "{keys}");
        let mut settings = on(tab);
        type_in(&mut settings, &[KeyCode::Char('f')]);
        assert_eq!(settings.query().state.is_some(), filters, "{tab:?}");
        // Each press sorts by another column, and the title names it.
        let first = settings.query().sort;
        type_in(&mut settings, &[KeyCode::Char('s'), KeyCode::Char('r')]);
        assert_ne!(settings.query().sort, first);
        assert!(text(80, 24, &settings).contains(" reversed"), "{tab:?}");
    }
    assert!(!text(80, 24, &on(Tab::Diagram)).lines().last().unwrap().contains("s sort"), "no table is shown");
    assert!(text(120, 40, &on(Tab::Diagram)).lines().last().unwrap().contains("s sort"));
}

#[test]
fn a_key_saves_the_view_and_the_last_line_says_where() {
    let mut settings = on(Tab::Connections);
    let w = key(KeyCode::Char('w'));
    assert_eq!(apply(&mut settings, &w, Regions::default(), 9), Effect::Save);
    settings.notice = Some("saved view.json in /root".to_owned());
    let shown = text(80, 24, &settings);
    assert!(shown.lines().last().unwrap().contains("saved view.json in /root"), "{shown}");
    assert_eq!(apply(&mut settings, &key(KeyCode::Down), Regions::default(), 9), Effect::Redraw);
    assert_eq!(settings.notice, None, "until the next key");
    settings.searching = true;
    assert_eq!(apply(&mut settings, &w, Regions::default(), 9), Effect::Redraw);
    assert_eq!(settings.query().search, "w", "a letter of the search");
}

#[test]
fn a_saved_view_has_what_is_shown() {
    let mut settings = by(Tab::Connections, Sort::Sent);
    settings.query_mut().state = Some(TcpState::Established);
    let screen = screen_with(&settings);
    let clock = ClockOffset { to_utc_ns: 1_795_000_000_000_000_000 };
    let json = SavedView::new(&screen, &settings, clock).to_json();
    assert_eq!(json.last(), Some(&b'\n'));
    let view: serde_json::Value = serde_json::from_slice(&json).unwrap();
    assert_eq!((&view["type"], &view["tab"]), (&"top".into(), &"connections".into()));
    assert_eq!(view["time"], "2026-11-18T11:25:00.000000000Z");
    assert_eq!((&view["open_connections"], &view["matching_connections"]), (&9.into(), &6.into()));
    let table = &view["tables"][0];
    assert_eq!(
        (&table["tab"], &table["sort"], &table["state"]),
        (&"connections".into(), &"sent".into(), &"established".into())
    );
    let connections = view["connections"].as_array().unwrap();
    assert_eq!(connections.len(), 6);
    let first = &connections[0];
    assert_eq!((&first["local_address"], &first["local_port"]), (&"10.0.0.1".into(), &20_181.into()));
    assert_eq!((&first["bytes_sent"], &first["bytes_sent_per_second"]), (&60_543.into(), &20_181.into()));
    assert_eq!((&first["bytes_received"], &first["srtt_us"]), (&60_543_000.into(), &20_181.into()));
    assert_eq!((&first["reading_age_us"], &first["unread_bytes"]), (&400_000.0.into(), &10.into()));
    assert_eq!((&first["process"], &first["pid"]), (&"orders-api".into(), &4711.into()));
    assert_eq!(
        (&first["age_source"], &first["states"][1]["state"]),
        (&"observed".into(), &"established".into())
    );
    assert_eq!(
        (&view["owners"][0]["count"], &view["owners"][0]["states"][0]["count"]),
        (&9.into(), &6.into())
    );
    assert_eq!(view["handshake_groups"].as_array().unwrap().len(), 2);
    assert_eq!((&view["stuck"][0]["state"], &view["stuck_connections"]), (&"syn_sent".into(), &3.into()));
    let listener = &view["listeners"][0];
    assert_eq!((&listener["local_port"], &listener["accept_queue"]), (&443.into(), &129.into()));
    let opened = view["edges"].as_array().unwrap().iter().find(|edge| edge["to"] == "syn_sent").unwrap();
    assert_eq!((&opened["from"], &opened["count"]), (&"closed".into(), &62.into()));
}

#[test]
fn enter_on_a_group_lists_its_connections() {
    let drill = |tab, selected| {
        let mut settings = Settings { selected, detail: true, ..on(tab) };
        settings.queries.of_mut(Tab::Connections).state = Some(TcpState::SynSent);
        settings.drill_down(&screen_with(&Settings::default()));
        let matching = screen_with(&settings).matching;
        (settings.tab, settings.query().search.clone(), settings.detail, matching)
    };
    let screen = screen_with(&Settings::default());
    let owner = screen.owners[0].process.unwrap();
    let (tab, search, detail, matching) = drill(Tab::Owners, 0);
    assert_eq!((tab, search, detail), (Tab::Connections, format!("orders-api {}", owner.pid), false));
    assert_eq!(matching, screen.owners[0].count);
    let client = screen.handshakes.iter().position(|group| group.group == "10.0.0.9:8080").unwrap();
    assert_eq!(drill(Tab::Handshakes, client), (Tab::Connections, "10.0.0.9:8080".to_owned(), false, 7));
    let port = screen.listeners.unwrap()[0].local.port;
    assert_eq!(drill(Tab::Listeners, 0).1, format!(":{port} "));
    assert_eq!(drill(Tab::Connections, 0).0, Tab::Connections);
    assert!(drill(Tab::Connections, 0).2, "a connection has details");
}

fn key(code: KeyCode) -> Event {
    Event::Key(KeyEvent::new(code, KeyModifiers::NONE))
}

fn type_in(settings: &mut Settings, keys: &[KeyCode]) {
    for &code in keys {
        apply(settings, &key(code), Regions::default(), 9);
    }
}

#[test]
fn keys_control_the_view() {
    let mut settings = Settings::default();
    type_in(
        &mut settings,
        &[KeyCode::Tab, KeyCode::Down, KeyCode::Char('j'), KeyCode::Char('s'), KeyCode::Char('r')],
    );
    assert_eq!((settings.tab, settings.selected), (Tab::Connections, 2));
    assert_eq!((settings.query().sort, settings.query().reversed), (Sort::State, true));
    type_in(&mut settings, &[KeyCode::End, KeyCode::Down]);
    assert_eq!(settings.selected, 8, "the last of nine");
    type_in(&mut settings, &[KeyCode::Char('5'), KeyCode::Char(' '), KeyCode::Char('f')]);
    assert_eq!((settings.tab, settings.selected, settings.paused), (Tab::Stuck, 0, true));
    assert_eq!(settings.query().state, Some(TcpState::SynSent));
    // Command keys are text in a search.
    type_in(
        &mut settings,
        &[KeyCode::Char('/'), KeyCode::Char('q'), KeyCode::Char('s'), KeyCode::Backspace, KeyCode::Enter],
    );
    assert_eq!((settings.query().search.as_str(), settings.searching, settings.quit), ("q", false, false));
    type_in(&mut settings, &[KeyCode::Esc]);
    assert_eq!((settings.query().search.as_str(), settings.query().state), ("", None));
    // `q` closes the popup first, then the program.
    type_in(&mut settings, &[KeyCode::Char('?'), KeyCode::Char('q')]);
    assert!(!settings.help && !settings.quit);
    type_in(&mut settings, &[KeyCode::Enter, KeyCode::Esc, KeyCode::Char('q')]);
    assert!(!settings.detail && settings.quit);
    let mut settings = Settings { searching: true, ..Settings::default() };
    apply(
        &mut settings,
        &Event::Key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)),
        Regions::default(),
        0,
    );
    assert!(settings.quit, "Ctrl-C always ends it");
}

#[test]
fn the_timeline_stays_with_its_connection() {
    let mut settings = on(Tab::Connections);
    let screen = screen_with(&settings);
    type_in(&mut settings, &[KeyCode::Down, KeyCode::Enter]);
    settings.hold(&screen, 0);
    let opened = settings.opened_connection(&screen).unwrap().clone();
    assert_eq!(Some(&opened), screen.connections.get(1));
    // Another sort order moves the connection to another line.
    let mut reversed = settings.clone();
    reversed.query_mut().reversed = true;
    let other = screen_with(&reversed);
    settings.hold(&other, 1);
    assert_eq!(settings.opened_connection(&other).unwrap().socket, opened.socket);
    assert_ne!(other.connections[1].socket, opened.socket);
    // The timeline follows the selection.
    settings.selected = 2;
    settings.hold(&other, 1);
    assert_eq!(settings.opened_connection(&other), other.connections.get(2));
    let empty = Screen::default();
    assert_eq!(settings.opened_connection(&empty), None);
    let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
    let theme = Theme::new(true);
    terminal.draw(|frame| assert_eq!(draw(frame, &empty, &settings, theme).tabs.y, 1)).unwrap();
    assert!(terminal.backend().to_string().contains("It has closed"), "{}", terminal.backend());
    settings.detail = false;
    settings.hold(&empty, 2);
    assert_eq!(settings.opened, None);
}

#[test]
fn the_mouse_selects_and_scrolls() {
    let (_, regions) = drawn(80, 24, &on(Tab::Connections), Theme::new(true));
    assert_eq!(regions.tabs, Rect { x: 0, y: 1, width: 80, height: 1 });
    let mut settings = on(Tab::Connections);
    let mut mouse = |kind, column, row| {
        let event = MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE };
        apply(&mut settings, &Event::Mouse(event), regions, 9);
        (settings.tab, settings.selected, settings.detail)
    };
    let click = MouseEventKind::Down(MouseButton::Left);
    assert_eq!(mouse(MouseEventKind::ScrollDown, 5, 5), (Tab::Connections, 1, false));
    assert_eq!(mouse(click, 5, regions.rows.y + 3), (Tab::Connections, 3, false));
    assert_eq!(mouse(click, 5, regions.rows.y + 3), (Tab::Connections, 3, true), "the selected one again");
    assert_eq!(mouse(click, 5, regions.rows.y + 12), (Tab::Connections, 3, true), "below the last");
    assert_eq!(mouse(click, 30, 1), (Tab::Owners, 0, false));
    let resize = Event::Resize(100, 30);
    assert_eq!(apply(&mut Settings::default(), &resize, regions, 0), Effect::Redraw);
}

proptest! {
    #[test]
    fn the_selection_stays_within_the_table(keys in proptest::collection::vec(any::<char>(), 0..60), lines in 0..40_usize) {
        let mut settings = Settings::default();
        for character in keys {
            let code = match character as u32 % 7 {
                0 => KeyCode::Down,
                1 => KeyCode::PageDown,
                2 => KeyCode::End,
                3 => KeyCode::Tab,
                _ => KeyCode::Char(character),
            };
            apply(&mut settings, &key(code), Regions::default(), lines);
            prop_assert!(settings.selected <= lines.saturating_sub(1));
        }
    }
}

#[test]
fn rates_cover_a_second_not_a_refresh() {
    // Screens are drawn twice a second, but rates cover a whole second.
    let mut model = model();
    let mut tracker = Tracker::new(TrackerOptions::default());
    let mut rates = Vec::new();
    for half in 0..6_u64 {
        let at = half * 500 * MS;
        for event in socket_events(half + 1, TcpState::Closed, &[(at, TcpState::SynSent)], 0) {
            tracker.observe(&event, &mut |observation| model.observe(&observation));
        }
        let now = Timestamp(BEGIN + at + 1);
        rates.push(model.screen(&tracker, SourceCounts::default(), now, &Settings::default()).per_second);
    }
    assert_eq!(rates, [0, 1, 2, 2, 2, 2]);
}

/// Returns the screen of a filtered host whose processes are all in one cgroup.
fn filtered(filter: Filter) -> Screen {
    let cgroups = RecordedCgroups::default();
    let path = "/shop".to_owned();
    let cgroup = Cgroup::new(path);
    cgroup.names.set_pod(Arc::new(PodNames::new("shop", "web-0", None, "node").unwrap()));
    cgroups.set_process(4711, Some(Arc::new(cgroup)));
    let mut model = Model::new(filter, ConnectionCgroups::new(CgroupResolver::recorded(cgroups)));
    let tracker = observe(&host(), |observation| model.observe(&observation));
    model.screen(&tracker, SourceCounts::default(), Timestamp(BEGIN + 100 * SECOND), &Settings::default())
}

#[test]
fn the_cgroup_filter_applies_everywhere() {
    let asked = |path| Filter { cgroup: Some(CgroupSubtree::parse(path).unwrap()), ..Filter::default() };
    let shop = filtered(asked("/shop"));
    assert_eq!((shop.matching, shop.owners[0].count), (9, 9));
    let opened = |screen: &Screen| {
        let edge = |line: &&EdgeLine| line.edge == (TcpState::Closed, TcpState::SynSent);
        screen.edges.iter().find(edge).map_or(0, |line| line.count)
    };
    assert_eq!(opened(&shop), 62);
    assert!(!shop.handshakes.is_empty());
    let none = filtered(asked("/other"));
    assert_eq!((none.matching, none.edges.len(), none.handshakes.len(), none.stuck.len()), (0, 0, 0, 0));
    assert_eq!(none.states.iter().map(|line| line.live).sum::<u64>(), 0);

    let of = |pods: &[&str], namespaces: &[&str]| {
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        filtered(Filter { pods: owned(pods), k8s_namespaces: owned(namespaces), ..Filter::default() })
            .matching
    };
    assert_eq!((of(&["web-0"], &[]), of(&["db-0", "web-0"], &["shop"]), of(&[], &["shop"])), (9, 9, 9));
    assert_eq!((of(&["web"], &[]), of(&["web-0"], &["default"])), (0, 0));

    // The first transition of a client has no local port, and the client still in SYN_SENT has none at all.
    let by_port = filtered(Filter { local_ports: "20000-59999".parse().ok(), ..Filter::default() });
    assert_eq!(opened(&by_port), 61);
}

/// A `close()` after a missed `shutdown()` shows FIN_WAIT2 twice: the entry into the state was missed.
#[test]
fn a_connection_whose_state_began_in_a_gap_is_not_stuck() {
    use tracer_core::event::Event::Transition;
    use tracer_core_testing::script::{time, transition};
    let seconds = |seconds: u64| time(seconds * 1_000_000);
    let events = [
        transition(1, seconds(0), TcpState::Closed, TcpState::SynSent),
        transition(1, seconds(1), TcpState::SynSent, TcpState::Established),
        transition(1, seconds(100), TcpState::FinWait2, TcpState::FinWait2),
    ];
    let mut model = model();
    let tracker = observe(&events.map(Transition), |observation| model.observe(&observation));
    let screen = model.screen(&tracker, SourceCounts::default(), seconds(101), &Settings::default());
    assert_eq!(screen.connections[0].state, TcpState::FinWait2);
    assert_eq!((screen.connections[0].age, screen.connections[0].at_least), (None, true));
    assert_eq!(screen.stuck, []);
}
