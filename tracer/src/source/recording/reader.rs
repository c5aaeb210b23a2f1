//! One file of a recording, batch by batch.

use std::{
    collections::HashMap,
    io::{self, Read},
};

use arrow_array::{ArrayRef, RecordBatch, new_null_array};
use arrow_ipc::{Endianness, Message, MessageHeader, reader, root_as_message};
use arrow_schema::{ArrowError, DataType, SchemaRef};

use super::{
    check,
    frames::{Frame, Frames, MAX_BODY},
};
use crate::recording::{COLUMNS, Header, HeaderError};

/// Why a file is not read as a recording.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotARecording {
    /// The file cannot be read.
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// It has not even a whole schema.
    #[error("it ends before the first event: it was cut off at once, or nothing was recorded")]
    Cut,
    /// Something else.
    #[error("it is no Arrow stream, so no recording of tcptrace-bpf")]
    NotArrow,
    /// A schema that is not a recording's.
    #[error(
        "its column `{0}` is missing or of another type: it is no recording, or was written by another program"
    )]
    Column(&'static str),
    /// Columns of types that no recording has.
    #[error(
        "it has a column of type {0}, which no recording has: use a tcptrace-bpf as new as the one that wrote it"
    )]
    ColumnType(DataType),
    /// More columns than any recording has.
    #[error("it has {0} columns, more than any recording: it was written by another program")]
    Columns(usize),
    /// Metadata that is not a recording's.
    #[error(transparent)]
    Header(#[from] HeaderError),
}

/// What a file lacks at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The end marker, and nothing else.
    EndMarker,
    /// The rest of a batch.
    RestOfBatch {
        /// Bytes after the last whole batch.
        unused: u64,
    },
    /// Everything after a place that cannot be understood.
    Damaged {
        /// Where the last whole batch ends.
        at: u64,
        /// What is wrong there.
        why: String,
        /// Bytes from there on.
        unused: u64,
    },
    /// Something follows the end marker.
    AfterEnd {
        /// Its bytes.
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
                "the recording ends inside a batch: {unused} bytes after the last complete one are not used"
            ),
            Self::Damaged { at, why, unused } => write!(
                formatter,
                "the recording is damaged after byte {at} ({why}): {unused} bytes are not used"
            ),
            Self::AfterEnd { unused } => {
                write!(formatter, "{unused} bytes after the end of the recording are not used")
            }
        }
    }
}

/// Reads one file of a recording from a stream of bytes, however it ends and whatever it holds.
#[derive(Debug)]
pub struct Reader<R> {
    frames: Frames<R>,
    schema: SchemaRef,
    /// Where each of [`COLUMNS`] is; none for an optional one that the file lacks.
    places: Vec<Option<usize>>,
    header: Header,
    dictionaries: HashMap<i64, ArrayRef>,
    /// Where the last whole batch ended.
    whole: u64,
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
            return Err(NotARecording::Columns(schema.fields().len()));
        }
        if let Some(field) = schema.fields().iter().find(|field| check::buffers(field.data_type()).is_none())
        {
            return Err(NotARecording::ColumnType(field.data_type().clone()));
        }
        let header = Header::from_metadata(schema.metadata())?;
        let place = |column: &crate::recording::Column| {
            let place = schema.fields().iter().position(|field| {
                field.name() == column.name && *field.data_type() == column.kind.data_type()
            });
            if place.is_none() && !column.is_optional() {
                return Err(NotARecording::Column(column.name));
            }
            Ok(place)
        };
        let places = COLUMNS.iter().map(place).collect::<Result<_, _>>()?;
        let whole = frames.position();
        Ok(Self {
            frames,
            schema,
            places,
            header,
            dictionaries: HashMap::new(),
            whole,
            ended: false,
            missing: None,
        })
    }

    /// What the file says about itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// How many bytes were read.
    pub fn position(&self) -> u64 {
        self.frames.position()
    }

    /// What is missing, once the end has been reached; none for a file that ended cleanly.
    pub fn missing(&self) -> Option<&Missing> {
        self.missing.as_ref()
    }

    /// The next batch, its columns in the order of [`COLUMNS`]; none at the end.
    ///
    /// # Errors
    ///
    /// When the file cannot be read. What it holds is never an error: it ends where it cannot be
    /// understood, and [`missing`](Self::missing) says so.
    pub fn next_batch(&mut self) -> io::Result<Option<RecordBatch>> {
        while !self.ended {
            match self.message()? {
                Step::Dictionary => {}
                Step::Batch(batch) => {
                    self.whole = self.frames.position();
                    match in_order(&batch, &self.places) {
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
                    let unused = self.frames.position() - self.whole;
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
        let unused = self.frames.position() - self.whole;
        self.missing = Some(Missing::Damaged { at: self.whole, why, unused });
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
            return Ok(Step::Damaged("a message is none".to_owned()));
        };
        let length = match u64::try_from(message.bodyLength()) {
            Ok(length) if length <= MAX_BODY => length,
            _ => return Ok(Step::Damaged("the length of a message is not plausible".to_owned())),
        };
        let Some(body) = self.frames.body(length)? else { return Ok(Step::Cut) };
        Ok(self.understand(&message, body))
    }

    fn understand(&mut self, message: &Message<'_>, body: Vec<u8>) -> Step {
        let version = message.version();
        let outcome = match message.header_type() {
            MessageHeader::DictionaryBatch => message.header_as_dictionary_batch().map(|dictionary| {
                check::dictionary(&dictionary, &body)?;
                if !self.is_dictionary(dictionary.id()) {
                    return Err("a dictionary is of no column".to_owned());
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
            None => Step::Damaged("a message is of another kind".to_owned()),
        }
    }

    #[expect(deprecated, reason = "the ids of the stream's dictionaries have no other home")]
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

/// Arrow's errors hold what the file says; a sentence takes one printable line of it.
fn one_line(error: &ArrowError) -> String {
    crate::output::escape(error.to_string().as_bytes()).chars().take(160).collect()
}
