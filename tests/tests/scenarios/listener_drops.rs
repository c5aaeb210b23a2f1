//! The drops of listeners in the metrics of the daemon, beside those that `ss` shows.

use rstest::rstest;
use tcptrace_tests::{Daemon, Mode, Namespace, sockets, wait};

use crate::support::{drops_by_ss, overflow, overflows};

/// A counter that must stay on the page and never decrease.
struct Counter<'a> {
    daemon: &'a Daemon,
    series: String,
    last: u64,
}

impl Counter<'_> {
    fn value(&mut self) -> u64 {
        let page = self.daemon.page();
        let found =
            page.lines().find_map(|line| line.strip_prefix(&*self.series)?.strip_prefix(' ')?.parse().ok());
        let value = found.unwrap_or_else(|| panic!("{} is missing", self.series));
        assert!(value >= self.last, "{} went from {} to {value}", self.series, self.last);
        self.last = value;
        value
    }

    fn wait_for(&mut self, expected: u64) {
        wait::until(&format!("{} {expected}", self.series), || {
            let value = self.value();
            assert!(value <= expected, "{} is {value}, more than {expected}", self.series);
            (value == expected).then_some(())
        });
    }
}

#[rstest]
fn drops_of_a_port_are_counted_across_its_listeners(#[values(Mode::Btf, Mode::Tracepoint)] mode: Mode) {
    let namespace = Namespace::new();
    // The daemon finds the namespace only through a process in it.
    let _inhabitant = namespace.inhabit();
    let listen = |on: &str| namespace.run("server", || sockets::listen_with(on, 1, |_| {}));
    let listener = listen("127.0.0.1:0");
    let (to, port) = (sockets::local(&listener), sockets::port(&listener));
    overflow(&namespace, to, 5);
    let (before, overflows_before) = (drops_by_ss(&namespace, port), overflows(&namespace));
    assert!(before > 0);

    let daemon = Daemon::start(&namespace, &["--mode", mode.name()]);
    let counter = |series: String| Counter { daemon: &daemon, series, last: 0 };
    let mut drops = counter(format!("tcptrace_listener_drops_total{{port=\"{port}\"}}"));
    let mut causes = counter("tcptrace_listen_overflows_total".to_owned());
    drops.wait_for(0);

    overflow(&namespace, to, 20);
    let first = u64::from(drops_by_ss(&namespace, port) - before);
    assert!(first >= 20, "{first}");
    drops.wait_for(first);
    causes.wait_for(overflows(&namespace) - overflows_before);

    // The port keeps its count without a listener, and with a new one, whose own count begins at 0.
    drop(listener);
    let queue = format!("tcptrace_listener_accept_queue{{port=\"{port}\"}}");
    wait::until("the end of the listener", || daemon.value(&queue).is_none().then_some(()));
    drops.wait_for(first);
    let listener = listen(&to.to_string());
    wait::until("the new listener", || daemon.value(&queue).map(|_| ()));
    assert_eq!(drops_by_ss(&namespace, port), 0);
    drops.wait_for(first);
    overflow(&namespace, to, 20);
    let second = u64::from(drops_by_ss(&namespace, port));
    assert!(second >= 18, "{second}");
    drops.wait_for(first + second);
    causes.wait_for(overflows(&namespace) - overflows_before);
    drop(listener);
}
