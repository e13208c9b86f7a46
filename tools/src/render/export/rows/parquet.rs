//! Rows as Apache Parquet: flat columns that may be null, one row group for each [`GROUP_ROWS`] rows, Snappy.
//!
//! Counts are `UINT_64`, other figures `DOUBLE`, instants `TIMESTAMP(ns, UTC)`, the rest `UTF8`. Why a cell is null is in the
//! column `unknown`, as JSON by column name.

use std::io::{self, Write};
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};

use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::types::{Type, TypePtr};

use super::{Cell, Row, unknowns};

/// Rows that are held until they are written: those of an hour of windows of a second, and more.
const GROUP_ROWS: usize = 4_096;
/// Name of the column that says why others are null.
const UNKNOWN: &str = "unknown";

/// What a column holds. It is known by the name, since the first rows may not know a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    Text,
    Instant,
    Whole,
    Number,
}

fn holds(name: &str) -> Holds {
    match name {
        "run" | UNKNOWN => Holds::Text,
        "from" | "to" => Holds::Instant,
        name if name.ends_with("_quality") => Holds::Text,
        name if name.ends_with("_s") || name.ends_with("_mean") || name.ends_with("_mean_ns") => {
            Holds::Number
        }
        _ => Holds::Whole,
    }
}

/// Bytes that the writer has made and nobody has taken yet: it wants a sink that it may send to another thread.
#[derive(Debug, Clone, Default)]
struct Made(Arc<Mutex<Vec<u8>>>);

impl Made {
    fn take(&self) -> Vec<u8> {
        mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Write for Made {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A file that is being written.
pub(super) struct Table<'o> {
    out: &'o mut dyn Write,
    made: Made,
    columns: Vec<(String, Holds)>,
    rows: Vec<Row>,
    writer: Option<SerializedFileWriter<Made>>,
}

fn failed(error: ParquetError) -> io::Error {
    io::Error::other(error)
}

impl<'o> Table<'o> {
    pub(super) fn new(out: &'o mut dyn Write) -> Self {
        let (columns, rows) = (Vec::new(), Vec::new());
        Self { out, made: Made::default(), columns, rows, writer: None }
    }

    /// One more row; all of them have the columns of the first.
    pub(super) fn row(&mut self, mut row: Row) -> io::Result<()> {
        let unknown = unknowns(&row);
        let why = (!unknown.is_empty()).then(|| serde_json::Value::Object(unknown).to_string());
        row.push((
            UNKNOWN.to_owned(),
            why.map_or_else(|| Cell::Unknown(String::new()), Cell::Text),
        ));
        if self.writer.is_none() {
            self.begin(&row)?;
        }
        let same = self.columns.iter().map(|(name, _)| name).eq(row.iter().map(|(name, _)| name));
        if !same {
            return Err(io::Error::other("a row has other columns than the first one"));
        }
        self.rows.push(row);
        if self.rows.len() == GROUP_ROWS { self.group() } else { Ok(()) }
    }

    fn begin(&mut self, row: &Row) -> io::Result<()> {
        self.columns = row.iter().map(|(name, _)| (name.clone(), holds(name))).collect();
        let by = format!("tailbeam version {}", env!("CARGO_PKG_VERSION"));
        let about = KeyValue::new("tailbeam.rows".to_owned(), "windows of a run".to_owned());
        let properties = WriterProperties::builder()
            .set_created_by(by)
            .set_compression(Compression::SNAPPY)
            .set_key_value_metadata(Some(vec![about]))
            .build();
        let schema = schema(&self.columns).map_err(failed)?;
        let writer = SerializedFileWriter::new(self.made.clone(), schema, Arc::new(properties));
        self.writer = Some(writer.map_err(failed)?);
        Ok(())
    }

    fn group(&mut self) -> io::Result<()> {
        let rows = mem::take(&mut self.rows);
        let Some(writer) = self.writer.as_mut().filter(|_| !rows.is_empty()) else {
            return Ok(());
        };
        let mut group = writer.next_row_group().map_err(failed)?;
        for (at, (name, holds)) in self.columns.iter().enumerate() {
            column(&mut group, (name, *holds), rows.iter().map(|row| &row[at].1))?;
        }
        group.close().map_err(failed)?;
        writer.flush()?;
        self.out.write_all(&self.made.take())
    }

    /// The rest, and the footer, without which nobody can read it.
    ///
    /// # Errors
    /// Those of the sink; and there was no row, so that nobody knows the columns.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.group()?;
        let none = "no window lies in that range, and a Parquet file needs columns";
        let writer =
            self.writer.take().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, none))?;
        writer.close().map_err(failed)?;
        self.out.write_all(&self.made.take())
    }
}

fn schema(columns: &[(String, Holds)]) -> Result<TypePtr, ParquetError> {
    let field = |(name, holds): &(String, Holds)| {
        let (physical, logical) = match holds {
            Holds::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
            Holds::Instant => {
                (Physical::INT64, Some(LogicalType::timestamp(true, TimeUnit::NANOS)))
            }
            Holds::Whole => (Physical::INT64, Some(LogicalType::integer(64, false))),
            Holds::Number => (Physical::DOUBLE, None),
        };
        let field = Type::primitive_type_builder(name, physical)
            .with_repetition(Repetition::OPTIONAL)
            .with_logical_type(logical)
            .build()?;
        Ok::<_, ParquetError>(Arc::new(field))
    };
    let fields = columns.iter().map(field).collect::<Result<_, _>>()?;
    Ok(Arc::new(Type::group_type_builder("rows").with_fields(fields).build()?))
}

fn column<'c>(
    group: &mut SerializedRowGroupWriter<'_, Made>,
    (name, holds): (&str, Holds),
    cells: impl Iterator<Item = &'c Cell>,
) -> io::Result<()> {
    let none = || failed(ParquetError::General(format!("column {name} is not in the file")));
    let wrong = |cell: &Cell| io::Error::other(format!("column {name} is {holds:?}, not {cell:?}"));
    let mut writer = group.next_column().map_err(failed)?.ok_or_else(none)?;
    let written = match holds {
        Holds::Text => {
            let (values, levels) = of::<ByteArrayType>(cells, wrong, |cell| match cell {
                Cell::Text(text) => Some(ByteArray::from(text.as_str())),
                _ => None,
            })?;
            writer.typed::<ByteArrayType>().write_batch(&values, Some(&levels), None)
        }
        Holds::Instant | Holds::Whole => {
            let (values, levels) = of::<Int64Type>(cells, wrong, |cell| match (holds, cell) {
                (Holds::Instant, Cell::Instant(ns)) | (Holds::Whole, Cell::Whole(ns)) => {
                    Some(ns.cast_signed())
                }
                _ => None,
            })?;
            writer.typed::<Int64Type>().write_batch(&values, Some(&levels), None)
        }
        Holds::Number => {
            let (values, levels) = of::<DoubleType>(cells, wrong, |cell| match cell {
                Cell::Number(n) => Some(*n),
                _ => None,
            })?;
            writer.typed::<DoubleType>().write_batch(&values, Some(&levels), None)
        }
    };
    written.map_err(failed)?;
    writer.close().map_err(failed)
}

/// The values that are there, and for each cell whether it is.
fn of<'c, T: DataType>(
    cells: impl Iterator<Item = &'c Cell>,
    wrong: impl Fn(&Cell) -> io::Error,
    value: impl Fn(&Cell) -> Option<T::T>,
) -> io::Result<(Vec<T::T>, Vec<i16>)> {
    let (mut values, mut levels) = (Vec::new(), Vec::new());
    for cell in cells {
        if matches!(cell, Cell::Unknown(_)) {
            levels.push(0);
        } else {
            values.push(value(cell).ok_or_else(|| wrong(cell))?);
            levels.push(1);
        }
    }
    Ok((values, levels))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(at: u64, value: Cell) -> Row {
        vec![
            ("run".to_owned(), Cell::Text("r".to_owned())),
            ("from".to_owned(), Cell::Instant(at)),
            ("turns".to_owned(), value),
            ("open_mean".to_owned(), Cell::Number(0.5)),
        ]
    }

    #[test]
    fn a_file_begins_and_ends_with_its_mark_whatever_the_number_of_rows() {
        for rows in [1, GROUP_ROWS, GROUP_ROWS + 1, 3 * GROUP_ROWS] {
            let mut out = Vec::new();
            let mut table = Table::new(&mut out);
            for at in 0..rows as u64 {
                table.row(row(at, Cell::Whole(at))).unwrap();
            }
            table.finish().unwrap();
            assert!(out.starts_with(b"PAR1") && out.ends_with(b"PAR1"), "{rows} rows");
        }
    }

    #[test]
    fn what_is_no_table_is_refused() {
        let mut out = Vec::new();
        assert!(Table::new(&mut out).finish().is_err(), "no row");
        let mut table = Table::new(&mut out);
        table.row(row(1, Cell::Unknown("why".to_owned()))).unwrap();
        assert!(table.row(vec![("run".to_owned(), Cell::Whole(1))]).is_err(), "other columns");
        let mut table = Table::new(&mut out);
        table.row(row(1, Cell::Number(1.5))).unwrap();
        let error = table.finish().unwrap_err().to_string();
        assert!(error.contains("turns"), "a number where whole ones are: {error}");
    }
}
