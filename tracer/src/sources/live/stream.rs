//! The stream of events from the attached programs.

use std::{io, os::fd::OwnedFd, time::Duration};

use rustix::{
    event::{EventfdFlags, epoll, eventfd},
    io::Errno,
    time::Timespec,
};
use tracer_core::event::{Event, Nanos, SourceCounts, Timestamp};

use crate::{
    host,
    sources::live::{
        decode::{self, AddressKey},
        load::{Loaded, Twin},
        reading::Pass,
        twin::RecentTransitions,
    },
};

/// Interrupts the wait of a [`Stream`] from another thread.
#[derive(Debug)]
pub struct StopHandle(OwnedFd);

impl StopHandle {
    /// Ends the current wait, or the next one if none is running.
    pub fn wake(&self) {
        // The only possible error is a full counter, which means that the reader has already been woken.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }

    /// Returns another handle of the same stream.
    ///
    /// # Errors
    ///
    /// When the process has no file descriptors left.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }
}

/// Reads, decodes and counts the records of the attached programs.
pub(super) struct Stream {
    loaded: Loaded,
    epoll: OwnedFd,
    stop: StopHandle,
    interval: Timespec,
    key: AddressKey,
    counts: SourceCounts,
    /// Recognizes the twin program's duplicates; none without a twin.
    recent: Option<RecentTransitions>,
    /// When the first program was detached. Later records of the twin are not counted as recovered.
    detached: Option<Timestamp>,
    /// The last read left records behind.
    more: bool,
}

impl Stream {
    /// Creates a stream whose [`wait`](Self::wait) lasts at most `interval`.
    ///
    /// # Errors
    ///
    /// When the process has no file descriptors left.
    pub(super) fn new(loaded: Loaded, interval: Duration) -> rustix::io::Result<Self> {
        // Edge-triggered, because a level-triggered wait would return at once while any record is pending: every
        // transition would cost a system call.
        let edge = epoll::EventFlags::IN | epoll::EventFlags::ET;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, loaded.reading.descriptor(), epoll::EventData::new_u64(0), edge)?;
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &stop, epoll::EventData::new_u64(1), edge)?;
        let recent = matches!(loaded.twin, Twin::Attached).then(RecentTransitions::new);
        Ok(Self {
            loaded,
            epoll,
            stop: StopHandle(stop),
            interval: Timespec::try_from(interval).unwrap_or(Timespec { tv_sec: 0, tv_nsec: 20_000_000 }),
            key: AddressKey::random(),
            counts: SourceCounts { skipped: Some(0), ..SourceCounts::default() },
            recent,
            detached: None,
            more: false,
        })
    }

    /// Returns the attached programs.
    pub(super) fn loaded(&self) -> &Loaded {
        &self.loaded
    }

    /// Returns a handle that interrupts the wait.
    ///
    /// # Errors
    ///
    /// When the process has no file descriptors left.
    pub(super) fn stop_handle(&self) -> io::Result<StopHandle> {
        self.stop.try_clone()
    }

    /// Returns the counts of delivered and missed events so far.
    pub(super) fn counts(&self) -> SourceCounts {
        self.counts
    }

    /// Counts a resync.
    pub(super) fn count_resync(&mut self) {
        self.counts.resyncs += 1;
    }

    /// Returns whether the last read left records for which the programs do not wake the reader.
    pub(super) fn has_more(&self) -> bool {
        self.more
    }

    /// Returns the CPU time of the program that runs at every transition; `None` if it is not counted.
    pub(super) fn run_time(&self) -> Option<Nanos> {
        self.loaded.skipped.run_time()
    }

    /// Waits until the programs or a [`StopHandle`] wake the reader, at most for the interval.
    ///
    /// # Errors
    ///
    /// When the kernel refuses the wait.
    pub(super) fn wait(&self) -> io::Result<()> {
        let mut events =
            [epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) }; 2];
        // Records that are left do not wake the reader again.
        let timeout = if self.more { Timespec::default() } else { self.interval };
        match epoll::wait(&self.epoll, &mut events, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Delivers the events up to `until`. Returns whether all of them were delivered; false while a record of the ring
    /// is being written.
    pub(super) fn read(&mut self, until: Timestamp, deliver: &mut dyn FnMut(&Event)) -> bool {
        let Self { loaded, key, counts, recent, detached, .. } = self;
        let Loaded { reading, reasons, .. } = loaded;
        let Pass { more, complete } = reading.pass(until, |bytes| {
            decode::event(bytes, *key, reasons, |event| match event {
                Some(event) => {
                    if let Event::Transition(transition) = event {
                        if let Some(recent) = recent {
                            let by_twin = decode::is_by_twin(bytes);
                            if !recent.admit(transition, by_twin) {
                                counts.duplicates += 1;
                                return;
                            }
                            let skipped =
                                by_twin && detached.is_none_or(|detached| transition.time < detached);
                            counts.recovered += u64::from(skipped);
                        }
                        counts.seen += 1;
                    }
                    deliver(event);
                }
                None => counts.malformed += 1,
            })
        });
        self.more = more;
        self.update_counts();
        complete
    }

    /// Detaches the programs. Later reads return the remaining records.
    pub(super) fn detach(&mut self) {
        // In the order of attaching, the first program before its twin: no transition in between is missed.
        self.detached = Some(host::now());
        self.loaded.links.clear();
    }

    fn update_counts(&mut self) {
        // Read before the counters, because the twin counts a transition after the kernel has counted the skip. The
        // difference is therefore a lower bound of the skips that were not recovered, and the largest one is kept.
        let skipped = self.loaded.skipped.read();
        let kernel = self.loaded.counters.read();
        self.counts.lost = kernel.transitions_lost;
        self.counts.others_lost = kernel.others_lost;
        let recovered = kernel.twin_taken.saturating_sub(self.counts.duplicates);
        let before = self.counts.skipped.unwrap_or(0);
        self.counts.skipped = skipped.map(|skipped| skipped.saturating_sub(recovered).max(before));
    }
}
