//! The columns of what the kernel knows of a connection: from `bytes_sent` to `soft_error`.

use tracer_core::event::TcpInfo;

use crate::recording::writer::{
    batches::Batches,
    sparse::{Sparse, Values},
    validity::Validity,
};

/// The columns of what the kernel knows of a connection. It tells them together, but for three that it may not know.
#[derive(Debug, Default)]
pub(super) struct Figures {
    told: Validity,
    bytes: [Values<u64>; 2],
    segments: [Values<u32>; 4],
    round_trip: [Sparse<u32>; 2],
    mss: Values<u32>,
    user_timeout: Sparse<u32>,
    outstanding: [Values<u32>; 3],
    waiting: [Values<u8>; 2],
    soft_error: Values<u16>,
}

impl Figures {
    pub(super) fn put(&mut self, row: usize, info: &TcpInfo) {
        let TcpInfo {
            bytes_sent,
            bytes_received,
            segments_sent,
            segments_received,
            data_segments_received,
            retransmits,
            srtt_us,
            min_rtt_us,
            mss,
            user_timeout_ms,
            unacked_bytes,
            unread_bytes,
            segments_in_flight,
            pending_retransmits,
            probes,
            soft_error,
        } = *info;
        self.told.put(row);
        for (column, value) in self.bytes.iter_mut().zip([bytes_sent, bytes_received]) {
            column.put(value);
        }
        let segments = [segments_sent, segments_received, data_segments_received, retransmits];
        for (column, value) in self.segments.iter_mut().zip(segments) {
            column.put(value);
        }
        for (column, value) in self.round_trip.iter_mut().zip([srtt_us, min_rtt_us]) {
            column.put_known(row, value);
        }
        self.mss.put(mss);
        self.user_timeout.put_known(row, user_timeout_ms);
        let outstanding = [unacked_bytes, unread_bytes, segments_in_flight];
        for (column, value) in self.outstanding.iter_mut().zip(outstanding) {
            column.put(value);
        }
        for (column, value) in self.waiting.iter_mut().zip([pending_retransmits, probes]) {
            column.put(value);
        }
        self.soft_error.put(soft_error);
    }

    /// Writes the columns; the next batch begins empty.
    pub(super) fn write(&mut self, to: &mut Batches) {
        let Self { told, bytes, segments, round_trip, mss, user_timeout, outstanding, waiting, soft_error } =
            self;
        for column in bytes {
            column.write(told, to);
        }
        for column in segments {
            column.write(told, to);
        }
        for column in round_trip {
            column.write(to);
        }
        mss.write(told, to);
        user_timeout.write(to);
        for column in outstanding {
            column.write(told, to);
        }
        for column in waiting {
            column.write(told, to);
        }
        soft_error.write(told, to);
        told.clear();
    }
}
