//! Reads a recording file batch by batch.

use std::{
    collections::HashMap,
    io::{self, Read},
};

use arrow_array::{ArrayRef, RecordBatch, new_null_array};
use arrow_ipc::{Endianness, Message, MessageHeader, reader, root_as_message};
use arrow_schema::{ArrowError, DataType, SchemaRef};
use tracer_core::counted::counted_as;

use crate::recording::{
    COLUMNS, Header, HeaderError,
    reader::{
        check,
        frames::{Frame, Frames, MAX_BODY},
    },
};

/// Why a file is not a recording.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotARecording {
    /// The file cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// It ends inside the schema.
    #[error("it ends before the first event; record again")]
    Cut,
    /// It is not an Arrow stream.
    #[error("it is not an Arrow stream; pass a file from `tcptrace-bpf record`")]
    NotArrow,
    /// A column is missing or has another type.
    #[error("its column `{0}` is missing or has another type; pass a file from `tcptrace-bpf record`")]
    Column(&'static str),
    /// A column has a type that no recording has.
    #[error(
        "it has a column of the unsupported type {0}; use the version of tcptrace-bpf that recorded it, or a later one"
    )]
    ColumnType(DataType),
    /// It has more columns than any recording.
    #[error(
        "it has {0} columns, more than a recording of tcptrace-bpf; pass a file from `tcptrace-bpf record`"
    )]
    TooManyColumns(usize),
    /// Its metadata is not that of a recording.
    #[error(transparent)]
    Header(#[from] HeaderError),
}

/// A defect at the end of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Only the end marker.
    EndMarker,
    /// The rest of a batch.
    RestOfBatch {
        /// Bytes after the last complete batch.
        unused: u64,
    },
    /// Everything after an invalid message.
    Damaged {
        /// The position after the last complete batch.
        at: u64,
        /// The cause.
        why: String,
        /// Bytes after that position.
        unused: u64,
    },
    /// Other bytes follow the end marker.
    AfterEnd {
        /// Bytes after the end marker.
        unused: u64,
    },
}

impl std::fmt::Display for Missing {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::EndMarker => write!(
                formatter,
                "the recording ended without its end marker: it was cut off or is still being written"
            ),
            Self::RestOfBatch { unused } => write!(
                formatter,
                "the recording ends inside a batch: {} not used",
                counted_as(
                    *unused,
                    "byte after the last complete one is",
                    "bytes after the last complete one are"
                )
            ),
            Self::Damaged { at, why, unused } => write!(
                formatter,
                "the recording is damaged after byte {at} ({why}): {} not used",
                counted_as(*unused, "byte is", "bytes are")
            ),
            Self::AfterEnd { unused } => {
                let unused = counted_as(
                    *unused,
                    "byte after the end of the recording is",
                    "bytes after the end of the recording are",
                );
                write!(formatter, "{unused} not used")
            }
        }
    }
}

/// Reads a recording file from a stream of bytes. Handles truncated and damaged files.
#[derive(Debug)]
pub struct Reader<R> {
    frames: Frames<R>,
    schema: SchemaRef,
    /// The index of each of [`COLUMNS`] in the file; none for an optional column that the file lacks.
    column_indices: Vec<Option<usize>>,
    header: Header,
    dictionaries: HashMap<i64, ArrayRef>,
    /// The position after the last complete batch.
    complete_end: u64,
    ended: bool,
    missing: Option<Missing>,
}

impl<R: Read> Reader<R> {
    /// Reads the schema.
    ///
    /// # Errors
    ///
    /// [`NotARecording`].
    pub fn new(input: R) -> Result<Self, NotARecording> {
        let mut frames = Frames::new(input);
        let metadata = match frames.next()? {
            Frame::Message { metadata } => metadata,
            Frame::Cut => return Err(NotARecording::Cut),
            Frame::End | Frame::Damaged(_) => return Err(NotARecording::NotArrow),
        };
        let schema = schema(&metadata)?;
        if schema.fields().len() > check::MAX_COLUMNS {
            return Err(NotARecording::TooManyColumns(schema.fields().len()));
        }
        if let Some(field) = schema.fields().iter().find(|field| check::buffers(field.data_type()).is_none())
        {
            return Err(NotARecording::ColumnType(field.data_type().clone()));
        }
        let header = Header::from_metadata(schema.metadata())?;
        let index_of = |column: &crate::recording::Column| {
            let index = schema.fields().iter().position(|field| {
                field.name() == column.name && *field.data_type() == column.kind.data_type()
            });
            if index.is_none() && !column.is_optional() {
                return Err(NotARecording::Column(column.name));
            }
            Ok(index)
        };
        let column_indices = COLUMNS.iter().map(index_of).collect::<Result<_, _>>()?;
        let complete_end = frames.position();
        Ok(Self {
            frames,
            schema,
            column_indices,
            header,
            dictionaries: HashMap::new(),
            complete_end,
            ended: false,
            missing: None,
        })
    }

    /// Returns the header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Returns the number of bytes read so far.
    pub fn position(&self) -> u64 {
        self.frames.position()
    }

    /// Returns the defect at the end of the file, once the end is reached; `None` if the file ended cleanly.
    pub fn missing(&self) -> Option<&Missing> {
        self.missing.as_ref()
    }

    /// Returns the next batch, with its columns in the order of [`COLUMNS`]; `None` at the end.
    ///
    /// # Errors
    ///
    /// When the file cannot be read. Invalid content is not an error: the recording ends before it, and
    /// [`missing`](Self::missing) reports it.
    pub fn next_batch(&mut self) -> io::Result<Option<RecordBatch>> {
        while !self.ended {
            match self.message()? {
                Step::Dictionary => {}
                Step::Batch(batch) => {
                    self.complete_end = self.frames.position();
                    match in_order(&batch, &self.column_indices) {
                        Ok(batch) => return Ok(Some(batch)),
                        Err(error) => self.damaged(error.to_string())?,
                    }
                }
                Step::End => {
                    self.ended = true;
                    let end = self.frames.position();
                    self.frames.rest()?;
                    let unused = self.frames.position() - end;
                    self.missing = (unused != 0).then_some(Missing::AfterEnd { unused });
                }
                Step::Cut => {
                    self.ended = true;
                    let unused = self.frames.position() - self.complete_end;
                    self.missing = Some(match unused {
                        0 => Missing::EndMarker,
                        unused => Missing::RestOfBatch { unused },
                    });
                }
                Step::Damaged(why) => self.damaged(why)?,
            }
        }
        Ok(None)
    }

    fn damaged(&mut self, why: String) -> io::Result<()> {
        self.ended = true;
        self.frames.rest()?;
        let unused = self.frames.position() - self.complete_end;
        self.missing = Some(Missing::Damaged { at: self.complete_end, why, unused });
        Ok(())
    }

    fn message(&mut self) -> io::Result<Step> {
        let metadata = match self.frames.next()? {
            Frame::Message { metadata } => metadata,
            Frame::End => return Ok(Step::End),
            Frame::Cut => return Ok(Step::Cut),
            Frame::Damaged(why) => return Ok(Step::Damaged(why.to_owned())),
        };
        let Ok(message) = root_as_message(&metadata) else {
            return Ok(Step::Damaged("a message is invalid".to_owned()));
        };
        let length = match u64::try_from(message.bodyLength()) {
            Ok(length) if length <= MAX_BODY => length,
            _ => return Ok(Step::Damaged("the length of a message is invalid".to_owned())),
        };
        let Some(body) = self.frames.body(length)? else { return Ok(Step::Cut) };
        Ok(self.decode(&message, body))
    }

    fn decode(&mut self, message: &Message<'_>, body: Vec<u8>) -> Step {
        let version = message.version();
        let outcome = match message.header_type() {
            MessageHeader::DictionaryBatch => message.header_as_dictionary_batch().map(|dictionary| {
                check::dictionary(&dictionary, &body)?;
                if !self.is_dictionary(dictionary.id()) {
                    return Err("a dictionary belongs to no column".to_owned());
                }
                let known = &mut self.dictionaries;
                reader::read_dictionary(&body.into(), dictionary, &self.schema, known, &version)
                    .map_err(|error| one_line(&error))?;
                let all: usize = known.values().map(|it| it.get_buffer_memory_size()).sum();
                if i64::try_from(all).is_ok_and(|all| all <= check::MAX_ALL) {
                    Ok(Step::Dictionary)
                } else {
                    Err("its dictionaries are larger than any recording's".to_owned())
                }
            }),
            MessageHeader::RecordBatch => message.header_as_record_batch().map(|batch| {
                check::batch(&batch, &self.schema, &body)?;
                let schema = SchemaRef::clone(&self.schema);
                reader::read_record_batch(&body.into(), batch, schema, &self.dictionaries, None, &version)
                    .map(Step::Batch)
                    .map_err(|error| one_line(&error))
            }),
            _ => None,
        };
        match outcome {
            Some(Ok(step)) => step,
            Some(Err(why)) => Step::Damaged(why),
            None => Step::Damaged("a message has an unexpected type".to_owned()),
        }
    }

    #[expect(deprecated, reason = "the ids of a stream's dictionaries are only here")]
    fn is_dictionary(&self, id: i64) -> bool {
        self.schema.fields().iter().any(|field| field.dict_id() == Some(id))
    }
}

enum Step {
    Dictionary,
    Batch(RecordBatch),
    End,
    Cut,
    Damaged(String),
}

/// Returns the batch with [`COLUMNS`] in their order; a column that the file lacks is null.
fn in_order(batch: &RecordBatch, places: &[Option<usize>]) -> Result<RecordBatch, ArrowError> {
    let columns = COLUMNS.iter().zip(places).map(|(column, place)| match place {
        Some(place) => batch.column(*place).clone(),
        None => new_null_array(&column.kind.data_type(), batch.num_rows()),
    });
    RecordBatch::try_from_iter_with_nullable(
        COLUMNS.iter().zip(columns).map(|(column, array)| (column.name, array, true)),
    )
}

fn schema(metadata: &[u8]) -> Result<SchemaRef, NotARecording> {
    let message = root_as_message(metadata).map_err(|_| NotARecording::NotArrow)?;
    let schema = message
        .header_as_schema()
        .filter(|schema| message.bodyLength() == 0 && schema.endianness() == Endianness::Little)
        .ok_or(NotARecording::NotArrow)?;
    arrow_ipc::convert::try_fb_to_schema(schema).map(SchemaRef::new).map_err(|_| NotARecording::NotArrow)
}

/// Escapes and truncates an arrow error, which may contain bytes of the file.
fn one_line(error: &ArrowError) -> String {
    tracer_core::escape::escape(error.to_string().as_bytes()).chars().take(160).collect()
}
