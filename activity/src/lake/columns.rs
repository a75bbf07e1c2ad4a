//! Events as columns of a Parquet file. One table, [`columns`], says which there are; `docs/activity.md` lists them for who reads the lake.

use std::{io::Write, mem, ops::Range, sync::Arc};

use bytes::Bytes;
use parquet::{
    basic::{Compression, Encoding, ZstdLevel},
    data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, Int64Type},
    errors::ParquetError,
    file::{
        properties::{EnabledStatistics, WriterProperties, WriterPropertiesPtr},
        writer::SerializedFileWriter,
    },
    schema::{
        parser::parse_message_type,
        types::{ColumnPath, TypePtr},
    },
};

use crate::event::{Event, KEYS, Key, Name, Unit, User, uuid_text};

/// An event and what the log knows of it.
pub(super) struct Row<'e> {
    pub(super) number: u64,
    pub(super) written_ms: u64,
    pub(super) event: &'e Event<'e>,
}

/// A column's values so far. An absent one has a level of 0 and no value.
enum Values {
    Numbers(Vec<i64>),
    Fractions(Vec<f64>),
    Truths(Vec<bool>),
    /// Places in one buffer for all.
    Texts(Vec<u8>, Vec<Range<usize>>),
}

struct Column {
    /// As the message type of the schema has it.
    name: String,
    is_required: bool,
    values: Values,
    levels: Vec<i16>,
    take: Take,
}

/// How a column's value is taken out of a row.
enum Take {
    Number(fn(&Row<'_>) -> Option<u64>),
    Text(fn(&Row<'_>, &mut Vec<u8>)),
    Key(usize, Unit),
}

fn required(name: &str, take: Take) -> Column {
    Column { name: name.into(), is_required: true, values: Values::of(&take), levels: Vec::new(), take }
}

fn optional(name: &str, take: Take) -> Column {
    Column { is_required: false, ..required(name, take) }
}

impl Values {
    fn of(take: &Take) -> Self {
        match take {
            Take::Number(_) | Take::Key(_, Unit::Kbps | Unit::Ms | Unit::Count) => Self::Numbers(Vec::new()),
            Take::Key(_, Unit::Thousandths) => Self::Fractions(Vec::new()),
            Take::Key(_, Unit::Truth) => Self::Truths(Vec::new()),
            Take::Text(_) | Take::Key(_, Unit::Token(_)) => Self::Texts(Vec::new(), Vec::new()),
        }
    }
}

fn name(name: &Name<'_>, out: &mut Vec<u8>) {
    match name {
        Name::Uuid(uuid) => out.extend(uuid_text(uuid)),
        Name::Text(text) => out.extend(text.as_bytes()),
    }
}

fn user(User(user): &User, out: &mut Vec<u8>) {
    let digit = |n: u8| b"0123456789abcdef"[usize::from(n)];
    out.extend(user.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]));
}

/// Times, in milliseconds since 1970 in UTC.
const TIMES: [&str; 2] = ["happened_at", "received_at"];
/// Rising or unique, so that a dictionary would be a second copy.
const WITHOUT_DICTIONARY: [&str; 4] = ["event_number", "happened_at", "received_at", "event_id"];

/// Nobody asks for a range of these, so the least and the greatest of them help no reader.
const WITHOUT_STATISTICS: [&str; 3] = ["event_id", "session_id", "user_pseudonym"];

/// All columns, in their order. No name is a word of SQL, so that none needs quotes.
fn columns() -> Vec<Column> {
    let mut columns = vec![
        required("event_number", Take::Number(|row| Some(row.number))),
        required("event_type", Take::Text(|row, out| out.extend(row.event.kind.name().as_bytes()))),
        required("happened_at", Take::Number(|row| Some(row.event.at_ms))),
        required("received_at", Take::Number(|row| Some(row.written_ms))),
        required("event_id", Take::Text(|row, out| name(&row.event.id, out))),
        required("session_id", Take::Text(|row, out| name(&row.event.session, out))),
        optional("user_pseudonym", Take::Text(|row, out| row.event.user.iter().for_each(|of| user(of, out)))),
        optional("region", Take::Text(|row, out| out.extend(row.event.region.as_bytes()))),
        optional("title_id", Take::Text(|row, out| out.extend(row.event.title.as_bytes()))),
        optional("rendition_id", Take::Text(|row, out| out.extend(row.event.rendition.as_bytes()))),
        optional("position_ms", Take::Number(|row| row.event.position_ms)),
        optional("from_ms", Take::Number(|row| row.event.from_ms)),
        optional("played_ms", Take::Number(|row| row.event.played_ms.map(u64::from))),
        optional("row_name", Take::Text(|row, out| out.extend(row.event.row.as_bytes()))),
        optional("row_rank", Take::Number(|row| row.event.rank.map(u64::from))),
        required("weight", Take::Number(|row| Some(row.event.weight()))),
        optional("cmcd_cdn", Take::Text(|row, out| out.extend(row.event.cmcd.iter().flat_map(|cmcd| cmcd.cdn.as_bytes())))),
        optional("cmcd_ec", Take::Text(|row, out| out.extend(row.event.cmcd.iter().flat_map(|cmcd| cmcd.ec.as_bytes())))),
    ];
    let key = |(place, key): (usize, &Key)| optional(&format!("cmcd_{}", key.name), Take::Key(place, key.unit));
    columns.extend(KEYS.iter().enumerate().map(key));
    columns
}

impl Column {
    fn definition(&self) -> String {
        let Self { name, is_required, values, .. } = self;
        let repetition = if *is_required { "required" } else { "optional" };
        let (physical, logical) = match values {
            Values::Numbers(_) if TIMES.contains(&name.as_str()) => ("int64", " (timestamp(millis, true))"),
            Values::Numbers(_) => ("int64", ""),
            Values::Fractions(_) => ("double", ""),
            Values::Truths(_) => ("boolean", ""),
            Values::Texts(..) => ("binary", " (string)"),
        };
        format!("{repetition} {physical} {name}{logical};")
    }

    fn push(&mut self, row: &Row<'_>) {
        let number = |place| row.event.cmcd.as_ref().and_then(|cmcd| cmcd.number(place));
        let is_there = match (&mut self.values, &self.take) {
            (Values::Numbers(values), Take::Number(take)) => {
                let value = take(row);
                values.extend(value.map(|value| i64::try_from(value).unwrap_or(i64::MAX)));
                value.is_some()
            }
            (Values::Numbers(values), Take::Key(place, _)) => {
                values.extend(number(*place).map(i64::from));
                number(*place).is_some()
            }
            (Values::Fractions(values), Take::Key(place, _)) => {
                values.extend(number(*place).map(|thousandths| f64::from(thousandths) / 1000.0));
                number(*place).is_some()
            }
            (Values::Truths(values), Take::Key(place, _)) => {
                values.extend(number(*place).map(|truth| truth == 1));
                number(*place).is_some()
            }
            (Values::Texts(buffer, ranges), take) => {
                let start = buffer.len();
                match take {
                    Take::Text(take) => take(row, buffer),
                    Take::Key(place, Unit::Token(tokens)) => {
                        let token = number(*place).and_then(|token| tokens.get(token as usize));
                        buffer.extend(token.iter().flat_map(|token| token.as_bytes()));
                    }
                    _ => unreachable!("values are made for what is taken"),
                }
                let is_there = self.is_required || buffer.len() > start;
                ranges.extend(is_there.then_some(start..buffer.len()));
                is_there
            }
            _ => unreachable!("values are made for what is taken"),
        };
        if !self.is_required {
            self.levels.push(i16::from(is_there));
        }
    }
}

/// Rows on their way into one file.
pub(super) struct Rows {
    columns: Vec<Column>,
    schema: TypePtr,
    properties: WriterPropertiesPtr,
    count: usize,
}

impl Rows {
    pub(super) fn new() -> Self {
        let columns = columns();
        let definitions: Vec<_> = columns.iter().map(Column::definition).collect();
        let message = format!("message event {{ {} }}", definitions.join(" "));
        let schema = Arc::new(parse_message_type(&message).expect("the table of columns makes a schema"));
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(1).expect("a level of zstd")))
            .set_statistics_enabled(EnabledStatistics::Chunk)
            .set_created_by(concat!("larder ", env!("CARGO_PKG_VERSION")).into());
        for name in WITHOUT_DICTIONARY {
            properties = properties.set_column_dictionary_enabled(ColumnPath::from(name), false);
        }
        for name in WITHOUT_STATISTICS {
            properties = properties.set_column_statistics_enabled(ColumnPath::from(name), EnabledStatistics::None);
        }
        for name in ["event_number", "happened_at", "received_at"] {
            properties = properties.set_column_encoding(ColumnPath::from(name), Encoding::DELTA_BINARY_PACKED);
        }
        Self { columns, schema, properties: Arc::new(properties.build()), count: 0 }
    }

    pub(super) const fn count(&self) -> usize {
        self.count
    }

    pub(super) fn push(&mut self, row: &Row<'_>) {
        self.columns.iter_mut().for_each(|column| column.push(row));
        self.count += 1;
    }

    /// A file for them.
    pub(super) fn file<W: Write + Send>(&self, out: W) -> Result<SerializedFileWriter<W>, ParquetError> {
        SerializedFileWriter::new(out, Arc::clone(&self.schema), Arc::clone(&self.properties))
    }

    /// Writes all rows as one group, and begins anew.
    pub(super) fn flush<W: Write + Send>(&mut self, file: &mut SerializedFileWriter<W>) -> Result<(), ParquetError> {
        self.count = 0;
        let mut group = file.next_row_group()?;
        for column in &mut self.columns {
            let mut writer = group.next_column()?.expect("the schema was made of these columns");
            let levels = mem::take(&mut column.levels);
            let levels = (!column.is_required).then_some(&levels[..]);
            match &mut column.values {
                Values::Numbers(values) => writer.typed::<Int64Type>().write_batch(&mem::take(values), levels, None)?,
                Values::Fractions(values) => writer.typed::<DoubleType>().write_batch(&mem::take(values), levels, None)?,
                Values::Truths(values) => writer.typed::<BoolType>().write_batch(&mem::take(values), levels, None)?,
                Values::Texts(buffer, ranges) => {
                    let buffer = Bytes::from(mem::take(buffer));
                    let text = |range: Range<usize>| ByteArray::from(buffer.slice(range));
                    let texts: Vec<ByteArray> = mem::take(ranges).into_iter().map(text).collect();
                    writer.typed::<ByteArrayType>().write_batch(&texts, levels, None)?
                }
            };
            writer.close()?;
        }
        group.close()?;
        Ok(())
    }
}
