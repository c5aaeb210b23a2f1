//! Truncated files, damaged files, and files that are not recordings.

use std::sync::Arc;

use arrow_array::{
    Array as _, ArrayRef, DictionaryArray, RecordBatch, UInt64Array, new_null_array, types::Int32Type,
};
use arrow_ipc::{
    CompressionType,
    reader::StreamReader,
    writer::{IpcWriteOptions, StreamWriter},
};
use arrow_schema::{Field, Schema};
use proptest::prelude::*;
use tcptrace_bpf::{
    recording::{COLUMNS, Header, arrow_schema},
    sources::recording::{Missing, Reader},
};
use tracer_core::event::{
    Endpoint, Event, InitialSequences, Netns, SocketFlags, SocketId, SourceCounts, TcpState, ThreadName,
    Timestamp, Transition,
};

use super::support::{Content, header, read, recorded};

pub(crate) fn connect(time: Timestamp) -> Transition {
    let endpoint = |port| Endpoint { address: "10.0.0.1".parse().unwrap(), port };
    Transition {
        time,
        socket: SocketId(time.0),
        cookie: None,
        from: TcpState::Closed,
        to: TcpState::SynSent,
        local: endpoint(4000),
        remote: endpoint(80),
        process: None,
        thread: None,
        netns: Some(Netns(7)),
        cgroup_id: None,
        accept_queue: None,
        data_segments: None,
        unaccepted_segments: None,
        interface: None,
        transparent: false,
        defer_accept: false,
        sequences: None,
        flags: None,
        info: None,
    }
}

/// Recordings of earlier versions lack the columns that were added since.
#[test]
fn a_recording_without_the_optional_columns_reads() {
    let mut event = Transition {
        thread: Some(ThreadName(*b"worker-1\0\0\0\0\0\0\0\0")),
        data_segments: Some(3),
        unaccepted_segments: Some(1),
        interface: Some(2),
        transparent: true,
        defer_accept: true,
        sequences: Some(InitialSequences { local: 1, remote: Some(2) }),
        flags: Some(SocketFlags { error: 104, repair: true, ..SocketFlags::default() }),
        ..connect(Timestamp(5))
    };
    let new = recorded(&header(), &[&[Event::Transition(event)]], &COUNTS);
    let reader = StreamReader::try_new(&new[..], None).unwrap();
    let schema = reader.schema();
    let kept: Vec<usize> = (0..COLUMNS.len()).filter(|&index| !COLUMNS[index].is_optional()).collect();
    let schema = Arc::new(schema.project(&kept).unwrap());
    let mut writer = StreamWriter::try_new(Vec::new(), &schema).unwrap();
    for batch in reader {
        writer.write(&batch.unwrap().project(&kept).unwrap()).unwrap();
    }
    let content = read(&writer.into_inner().unwrap());

    (event.thread, event.data_segments) = (None, None);
    (event.unaccepted_segments, event.interface) = (None, None);
    (event.transparent, event.defer_accept, event.sequences) = (false, false, None);
    event.flags = Some(SocketFlags { error: 104, ..SocketFlags::default() });
    assert_eq!(content.events, [Event::Transition(event)]);
    assert_eq!(content.counts, SourceCounts { recovered: 0, duplicates: 0, ..COUNTS });
}

fn connects(range: std::ops::Range<u64>) -> Vec<Event> {
    range.map(|time| Event::Transition(connect(Timestamp(time)))).collect()
}

const COUNTS: SourceCounts = SourceCounts {
    seen: 30,
    lost: 4,
    skipped: Some(3),
    others_lost: 2,
    resyncs: 5,
    malformed: 1,
    recovered: 6,
    duplicates: 7,
};

#[test]
fn a_file_cut_at_any_byte_is_readable_and_reports_what_is_missing() {
    let batches = [connects(0..10), connects(10..20), connects(20..30)];
    let slices: Vec<&[Event]> = batches.iter().map(Vec::as_slice).collect();
    let whole = recorded(&header(), &slices, &COUNTS);
    // The ends of the first, the second and the third batch.
    let ends: Vec<usize> = (1..=3).map(|count| recorded_length(&slices[..count])).collect();
    let schema = recorded_length(&[]);
    assert_eq!(whole.len(), ends[2] + 8, "the end marker has 8 bytes");

    for length in ends[0]..whole.len() {
        let content = read(&whole[..length]);
        let last = ends.iter().filter(|&&end| end <= length).count();
        assert_eq!(content.events, batches[..last].concat(), "cut at {length}");
        let end = if last == 0 { schema } else { ends[last - 1] };
        let unused = (length - end) as u64;
        let missing = if unused == 0 { Missing::EndMarker } else { Missing::RestOfBatch { unused } };
        assert_eq!(content.missing, Some(missing), "cut at {length}");
    }
    let content = read(&whole);
    assert_eq!((content.events.len(), content.counts, content.missing), (30, COUNTS, None));
    for length in 0..schema {
        let error = Reader::new(&whole[..length]).unwrap_err().to_string();
        assert!(error.contains("it ends before the first event"), "cut at {length}: {error}");
    }
}

/// Returns the length of the recording without the end marker.
fn recorded_length(batches: &[&[Event]]) -> usize {
    let counts = if batches.len() == 3 { COUNTS } else { SourceCounts::default() };
    recorded(&header(), batches, &counts).len() - 8
}

#[test]
fn each_message_has_the_cause_and_the_size() {
    let sentences: Vec<String> = [
        Missing::EndMarker,
        Missing::RestOfBatch { unused: 17 },
        Missing::Damaged { at: 5, why: "why".into(), unused: 9 },
        Missing::AfterEnd { unused: 3 },
    ]
    .iter()
    .map(ToString::to_string)
    .collect();
    assert!(sentences[0].contains("without its end marker: it was cut off or is still being written"));
    assert!(sentences[1].contains("inside a batch: 17 bytes after the last complete one are not used"));
    assert!(sentences[2].contains("damaged after byte 5 (why): 9 bytes are not used"));
    assert!(sentences[3].contains("3 bytes after the end"));
}

/// After a power failure, unwritten blocks contain zeros.
#[test]
fn zeros_are_not_an_end_marker() {
    let events = connects(0..10);
    let mut bytes = recorded(&header(), &[&events], &COUNTS);
    bytes.truncate(bytes.len() - 8);
    bytes.extend([0; 5000]);
    let Content { events: read, missing, .. } = read(&bytes);
    assert_eq!(read, events);
    assert!(matches!(missing, Some(Missing::Damaged { unused: 5000, .. })), "{missing:?}");
}

#[test]
fn bytes_after_the_end_are_reported() {
    let events = connects(0..10);
    let mut bytes = recorded(&header(), &[&events], &COUNTS);
    bytes.extend(b"more");
    let content = read(&bytes);
    assert_eq!((content.events, content.missing), (events, Some(Missing::AfterEnd { unused: 4 })));
}

#[test]
fn other_files_are_rejected_with_a_message() {
    let newer = {
        let mut bytes = recorded(&header(), &[], &SourceCounts::default());
        let key = b"tcptrace.format";
        let at = bytes.windows(key.len()).position(|window| window == key).unwrap();
        // The value is near its key: a single digit with padding.
        let value = (at.saturating_sub(64)..at + 64)
            .find(|&index| bytes[index..].starts_with(b"\x01\0\0\x001\0"))
            .unwrap();
        bytes[value + 4] = b'9';
        bytes
    };
    for (bytes, part) in [
        (&b""[..], "ends before the first event"),
        (b"{\"type\":\"connection\"}\n", "not an Arrow stream"),
        (b"\xff\xff\xff\xff\xff\xff\xff\x7f", "not an Arrow stream"),
        (b"ARROW1\0\0\xff\xff\xff\xff", "not an Arrow stream"),
        (&newer, "format version 9"),
    ] {
        let error = Reader::new(bytes).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
        assert!(!error.contains('\n'));
    }
}

/// The lengths are much larger than the file.
#[test]
fn wrong_lengths_allocate_nothing() {
    let events = connects(0..10);
    let bytes = recorded(&header(), &[&events], &COUNTS);
    let schema = recorded(&Header { ..header() }, &[], &SourceCounts::default()).len() - 8;
    for lie in [0x7fff_ffff_u32, 0x003f_ffff, 0xffff_ffff] {
        let mut bytes = bytes.clone();
        bytes[schema + 4..schema + 8].copy_from_slice(&lie.to_le_bytes());
        let content = read(&bytes);
        assert_eq!(content.events, []);
        assert!(content.missing.is_some());
    }
}

/// Encodes a recording with null columns and these additional columns, compressed.
fn with_columns(more: &[(Field, ArrayRef)]) -> Vec<u8> {
    let schema = arrow_schema(header().to_metadata());
    let rows = more[0].1.len();
    let fields = schema.fields().iter().cloned().chain(more.iter().map(|(field, _)| Arc::new(field.clone())));
    let fields: Vec<_> = fields.collect();
    let empty = schema.fields().iter().map(|field| new_null_array(field.data_type(), rows));
    let columns: Vec<ArrayRef> = empty.chain(more.iter().map(|(_, column)| Arc::clone(column))).collect();
    // The required columns of a recording are null here, which the reader accepts.
    let fields: Vec<Field> = fields.iter().map(|field| field.as_ref().clone().with_nullable(true)).collect();
    let schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME)).unwrap();
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), &schema, options).unwrap();
    writer.write(&RecordBatch::try_new(schema, columns).unwrap()).unwrap();
    writer.into_inner().unwrap()
}

fn column(index: usize, array: &ArrayRef) -> (Field, ArrayRef) {
    (Field::new(format!("more_{index}"), array.data_type().clone(), true), Arc::clone(array))
}

/// Hundreds of kilobytes that decompress to gigabytes.
#[test]
fn the_total_size_of_columns_is_limited() {
    let zeros: ArrayRef = Arc::new(UInt64Array::from(vec![0; 1 << 19]));
    let read = |count: usize| {
        let columns: Vec<_> = (0..count).map(|index| column(index, &zeros)).collect();
        let bytes = with_columns(&columns);
        let mut reader = Reader::new(&bytes[..]).unwrap();
        let batch = reader.next_batch().unwrap();
        (batch.map(|batch| batch.num_rows()), reader.missing().cloned())
    };
    assert_eq!(read(1), (Some(1 << 19), None));
    let (rows, missing) = read(64);
    assert_eq!(rows, None);
    let missing = missing.unwrap().to_string();
    assert!(missing.contains("its columns are larger than any recording's"), "{missing}");
}

#[test]
fn the_total_size_of_dictionaries_is_limited() {
    let long = "a".repeat(60 << 20);
    let texts: ArrayRef = Arc::new([Some(long.as_str())].into_iter().collect::<DictionaryArray<Int32Type>>());
    let columns: Vec<_> = (0..6).map(|index| column(index, &texts)).collect();
    let bytes = with_columns(&columns);
    let mut reader = Reader::new(&bytes[..]).unwrap();
    assert!(reader.next_batch().unwrap().is_none());
    let missing = reader.missing().unwrap().to_string();
    assert!(missing.contains("its dictionaries are larger than any recording's"), "{missing}");
}

#[test]
fn a_file_with_too_many_columns_is_rejected() {
    let zero: ArrayRef = Arc::new(UInt64Array::from(vec![0]));
    let columns: Vec<_> = (0..1_000).map(|index| column(index, &zero)).collect();
    let error = Reader::new(&with_columns(&columns)[..]).unwrap_err().to_string();
    assert!(error.contains(&format!("it has {} columns", COLUMNS.len() + 1_000)), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn arbitrary_bytes_are_read_or_rejected(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(mut reader) = Reader::new(&bytes[..]) {
            while reader.next_batch().unwrap().is_some() {}
        }
    }
}
