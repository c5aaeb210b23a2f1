//! A recording of real connections, and its export.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tcptrace_tests::{
    Mode, Namespace, Tracer,
    program::{finds, program},
    sockets::{self, Pair},
    speed,
};

use crate::python::{folder, succeed};

/// Connections whose client has closed and whose server has not.
pub(crate) const LEAKED: usize = 3;

/// A folder with the recording `incident.arrows`; removed on drop.
pub(crate) struct RealRecording {
    folder: PathBuf,
    netns: u32,
}

impl RealRecording {
    /// Records connections of every kind that the documentation asks about: leaked, idle, refused, reset, closed in order,
    /// and open before the recording began. `None` if this kernel lacks mode btf, or skipped runs of the program.
    pub(crate) fn new(name: &str) -> Option<Self> {
        if !finds("mode btf") {
            speed::not_possible("it lacks mode btf, whose recordings have the kernel's figures");
            return None;
        }
        let folder = folder(name);
        let namespace = Namespace::new();
        // The program finds the namespace, and so the earlier connection, through a process in it.
        let _inhabitant = namespace.inhabit();
        let earlier = sockets::pair(&namespace, "127.0.0.1:0");
        let file = folder.join("incident.arrows");
        let recorder = Tracer::start([
            "record",
            file.to_str().unwrap(),
            "--mode",
            Mode::Btf.name(),
            "--duration",
            "10m",
        ]);
        let _idle = sockets::pair(&namespace, "[::1]:0");
        let _leaked: Vec<_> = (0..LEAKED)
            .map(|_| {
                let Pair { client, server, listener } = sockets::pair(&namespace, "127.0.0.1:0");
                namespace.run("client", || drop(client));
                sockets::wait_for_end(&server);
                (server, listener)
            })
            .collect();
        let reset = sockets::pair(&namespace, "127.0.0.1:0");
        sockets::reset_on_close(&reset.client);
        drop(reset.client);
        sockets::wait_for_error(&reset.server);
        let closed = sockets::pair(&namespace, "127.0.0.1:0");
        sockets::send(&closed.client, b"hello");
        sockets::receive(&closed.server, 5);
        for Pair { client, server, listener } in [closed, earlier] {
            namespace.run("client", || drop(client));
            sockets::wait_for_end(&server);
            namespace.run("server", || drop(server));
            drop(listener);
        }
        let nobody = sockets::local(&namespace.run("server", || sockets::listen("127.0.0.1:0")));
        let refused = namespace.run("refused", || sockets::try_connect(nobody).map(drop));
        assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
        namespace.settle_except(sockets::CLOSE_WAIT | sockets::FIN_WAIT_2);
        let ended = recorder.interrupt();
        let recording = Self { folder, netns: namespace.inode() };
        if ended.summary().missing() > 0 {
            speed::not_possible("it skipped runs of the BPF program");
            return None;
        }
        Some(recording)
    }

    /// The folder with the recording.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The network namespace of the connections.
    pub(crate) fn netns(&self) -> u32 {
        self.netns
    }

    /// Exports the recording to `traces` in its folder.
    pub(crate) fn export(&self, options: &[&str]) {
        let mut export = Command::new(program());
        export.current_dir(&self.folder).args(["export", "incident.arrows", "--to", "traces/"]).args(options);
        succeed(&mut export);
    }
}

impl Drop for RealRecording {
    fn drop(&mut self) {
        // The folder is in the build directory.
        let _ = fs::remove_dir_all(&self.folder);
    }
}
