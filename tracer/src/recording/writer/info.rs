//! The columns of `TcpInfo`, from `bytes_sent` to `soft_error`.

use tracer_core::event::TcpInfo;

use crate::recording::writer::{
    batches::Batches,
    sparse::{Sparse, Values},
    validity::Validity,
};

/// The columns of `TcpInfo`. A row has values in all of them, except for three optional ones.
#[derive(Debug, Default)]
pub(super) struct InfoColumns {
    validity: Validity,
    bytes: [Values<u64>; 2],
    segments: [Values<u32>; 4],
    round_trip: [Sparse<u32>; 2],
    mss: Values<u32>,
    user_timeout: Sparse<u32>,
    outstanding: [Values<u32>; 3],
    waiting: [Values<u8>; 2],
    soft_error: Values<u16>,
}

impl InfoColumns {
    pub(super) fn put(&mut self, row: usize, info: &TcpInfo) {
        let TcpInfo {
            bytes_sent,
            bytes_received,
            segments_sent,
            segments_received,
            data_segments_received,
            retransmits,
            srtt,
            min_rtt,
            mss,
            user_timeout,
            unacked_bytes,
            unread_bytes,
            segments_in_flight,
            pending_retransmits,
            probes,
            soft_error,
        } = *info;
        self.validity.put(row);
        for (column, value) in self.bytes.iter_mut().zip([bytes_sent, bytes_received]) {
            column.put(value);
        }
        let segments = [segments_sent, segments_received, data_segments_received, retransmits];
        for (column, value) in self.segments.iter_mut().zip(segments) {
            column.put(value);
        }
        for (column, value) in self.round_trip.iter_mut().zip([srtt, min_rtt]) {
            column.put_optional(row, value.map(|time| time.0));
        }
        self.mss.put(mss);
        self.user_timeout.put_optional(row, user_timeout.map(|time| time.0));
        let outstanding = [unacked_bytes, unread_bytes, segments_in_flight];
        for (column, value) in self.outstanding.iter_mut().zip(outstanding) {
            column.put(value);
        }
        for (column, value) in self.waiting.iter_mut().zip([pending_retransmits, probes]) {
            column.put(value);
        }
        self.soft_error.put(soft_error);
    }

    /// Writes the columns and clears them.
    pub(super) fn write(&mut self, to: &mut Batches) {
        let Self {
            validity,
            bytes,
            segments,
            round_trip,
            mss,
            user_timeout,
            outstanding,
            waiting,
            soft_error,
        } = self;
        for column in bytes {
            column.write(validity, to);
        }
        for column in segments {
            column.write(validity, to);
        }
        for column in round_trip {
            column.write(to);
        }
        mss.write(validity, to);
        user_timeout.write(to);
        for column in outstanding {
            column.write(validity, to);
        }
        for column in waiting {
            column.write(validity, to);
        }
        soft_error.write(validity, to);
        validity.clear();
    }
}
