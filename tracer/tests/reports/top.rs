//! The live view: its counts, keys, mouse and screens.

use std::sync::Arc;

use crossterm::event::{Event, KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use proptest::prelude::*;
use ratatui::{Terminal, backend::TestBackend, layout::Rect, style::Color};
use tcptrace_bpf::{
    host::{Cgroup, CgroupResolver, CgroupSubtree, PodNames, RecordedCgroups},
    report::{ConnectionCgroups, Filter},
    top::{EdgeLine, Effect, Model, Regions, Screen, Settings, Sort, Tab, Theme, apply, draw},
};
use tracer_core::{
    analysis::{ListenerDump, ListenerSnapshot},
    event::{AcceptQueue, Endpoint, Netns, SocketCookie, SourceCounts, TcpState, Timestamp},
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

fn screen_with(settings: &Settings) -> Screen {
    let mut model = model();
    model.dumped(listeners(100));
    model.dumped(listeners(112));
    let events = host();
    let tracker = observe(&events, |observation| model.observe(&observation));
    let source = SourceCounts { seen: events.len() as u64, skipped: Some(0), ..SourceCounts::default() };
    model.screen(&tracker, source, Timestamp(BEGIN + 100 * SECOND), settings)
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
    let by_state = Settings { sort: Sort::State, ..Settings::default() };
    assert_eq!(states(&by_state)[0], TcpState::Established);
    assert_eq!(states(&Settings { reversed: true, ..by_state })[0], TcpState::CloseWait);
    let only = Settings { state: Some(TcpState::SynSent), ..Settings::default() };
    assert_eq!(states(&only), [TcpState::SynSent]);
    let search =
        |text: &str| screen_with(&Settings { search: text.to_owned(), ..Settings::default() }).matching;
    assert_eq!(
        (search("close_wait"), search("ORDERS-api"), search("10.0.0.9:8080"), search("nobody")),
        (2, 9, 7, 0)
    );
    let ages: Vec<_> = screen_with(&Settings::default()).connections.iter().map(|line| line.age).collect();
    assert!(ages.is_sorted_by(|a, b| a >= b), "{ages:?}");
}

#[test]
fn enter_on_a_group_lists_its_connections() {
    let drill = |tab, selected| {
        let mut settings = Settings { selected, detail: true, state: Some(TcpState::SynSent), ..on(tab) };
        settings.drill_down(&screen_with(&Settings::default()));
        let matching = screen_with(&settings).matching;
        (settings.tab, settings.search, settings.detail, matching)
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
    assert_eq!((settings.sort, settings.reversed), (Sort::State, true));
    type_in(&mut settings, &[KeyCode::End, KeyCode::Down]);
    assert_eq!(settings.selected, 8, "the last of nine");
    type_in(&mut settings, &[KeyCode::Char('5'), KeyCode::Char(' '), KeyCode::Char('f')]);
    assert_eq!((settings.tab, settings.selected, settings.paused), (Tab::Stuck, 0, true));
    assert_eq!(settings.state, Some(TcpState::SynSent));
    // Command keys are text in a search.
    type_in(
        &mut settings,
        &[KeyCode::Char('/'), KeyCode::Char('q'), KeyCode::Char('s'), KeyCode::Backspace, KeyCode::Enter],
    );
    assert_eq!((settings.search.as_str(), settings.searching, settings.quit), ("q", false, false));
    type_in(&mut settings, &[KeyCode::Esc]);
    assert_eq!((settings.search.as_str(), settings.state), ("", None));
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
    let other = screen_with(&Settings { reversed: true, ..settings.clone() });
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
