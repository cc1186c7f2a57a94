//! What a row is made of: how a field of the model becomes the values of its columns, and comes back.

mod fields;

use mesh_model::{TailnetId, Timestamp};
use sqlx::{ColumnIndex, Decode, Type};
use thiserror::Error;

/// What a column holds. A NULL knows what it is the absence of, for Postgres asks.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Value {
    Int(Option<i64>),
    Text(Option<String>),
    Flag(Option<bool>),
}

/// The values of a row, in the order of its table's columns.
pub(crate) type Row = Vec<Value>;

/// The values of fields, one after the other.
macro_rules! row {
    ($($field:expr),+ $(,)?) => {{
        let mut row = crate::record::Row::new();
        $(crate::record::Field::write($field, &mut row)?;)+
        row
    }};
}
pub(crate) use row;

/// A model type as a row: one per record, and the tailnet's id in front.
pub(crate) trait Record: Sized {
    /// Where its rows are.
    const TABLE: &'static Table;

    /// Adds the values of the columns after the tailnet's id.
    fn write(&self, row: &mut Row) -> Result<(), Unfit>;

    /// Reads them back.
    fn read(reader: &mut Reader<'_>) -> Result<Self, ReadError>;
}

/// A table of records.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    /// The columns of the primary key: the first ones, beginning with `tailnet`.
    pub(crate) key: &'static [&'static str],
    /// All columns.
    pub(crate) columns: &'static [&'static str],
}

/// A field of a record: one column, or several.
pub(crate) trait Field: Sized {
    /// Adds its values.
    fn write(&self, row: &mut Row) -> Result<(), Unfit>;

    /// Reads them back.
    fn read(reader: &mut Reader<'_>) -> Result<Self, ReadError>;
}

/// A field of one column.
pub(crate) trait Column: Sized {
    /// What the column holds.
    type Raw: Raw;

    fn to_raw(&self) -> Result<Self::Raw, Unfit>;

    /// Reads it back; the error says what is wrong.
    fn from_raw(raw: Self::Raw) -> Result<Self, String>;

    /// What a NULL means, where it is not a mistake.
    fn from_null() -> Option<Self> {
        None
    }
}

/// One of the three types that columns have.
pub(crate) trait Raw: Sized {
    fn into_value(raw: Option<Self>) -> Value;

    fn read(row: &dyn Readable, index: usize) -> Result<Option<Self>, sqlx::Error>;
}

/// A row of either engine.
pub(crate) trait Readable {
    fn int(&self, index: usize) -> Result<Option<i64>, sqlx::Error>;
    fn text(&self, index: usize) -> Result<Option<String>, sqlx::Error>;
    fn flag(&self, index: usize) -> Result<Option<bool>, sqlx::Error>;
}

/// A value that a database cannot hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum Unfit {
    /// Postgres refuses it in text, so neither engine takes it.
    #[error("a text with a NUL character cannot be stored")]
    Nul,
    /// Both engines hold 63 bits and a sign.
    #[error("the number {0} is too large to be stored")]
    TooLarge(u64),
    /// In the very last second that there is; it could not be read back.
    #[error("the instant {0} is too late to be stored")]
    TooLate(Timestamp),
}

/// A column that cannot be understood.
#[derive(Debug, Error)]
#[error("column `{column}`: {why}")]
pub(crate) struct ReadError {
    column: &'static str,
    why: String,
}

/// A row that cannot be understood: somebody else wrote it, or the disk is damaged.
#[derive(Debug, Error)]
#[error("row {id} of table `{table}` cannot be read: correct it, or restore a backup")]
pub(crate) struct RowError {
    table: &'static str,
    id: String,
    source: ReadError,
}

/// Reads a row column by column.
pub(crate) struct Reader<'r> {
    row: &'r dyn Readable,
    columns: &'static [&'static str],
    next: usize,
}

impl RowError {
    /// A row of `table` with the key `id`.
    pub(crate) fn new(table: &'static str, id: String, source: ReadError) -> Self {
        Self { table, id, source }
    }
}

impl<'r> Reader<'r> {
    /// Starts at the first of `columns`, which are all that the row has.
    pub(crate) fn new(row: &'r dyn Readable, columns: &'static [&'static str]) -> Self {
        Self { row, columns, next: 0 }
    }

    fn next<T: Raw>(&mut self) -> Result<Option<T>, ReadError> {
        let index = self.next;
        self.next += 1;
        T::read(self.row, index)
            .map_err(|error| ReadError { column: self.columns[index], why: error.to_string() })
    }

    /// What is wrong with the column that was read last.
    fn error(&self, why: impl Into<String>) -> ReadError {
        ReadError { column: self.columns[self.next - 1], why: why.into() }
    }
}

/// Makes a row of a record.
pub(crate) fn write_row<R: Record>(tailnet: TailnetId, record: &R) -> Result<Row, Unfit> {
    let mut row = Row::with_capacity(R::TABLE.columns.len());
    tailnet.write(&mut row)?;
    record.write(&mut row)?;
    Ok(row)
}

/// Reads a record; the row has all columns of its table.
pub(crate) fn read_row<R: Record>(row: &dyn Readable) -> Result<R, RowError> {
    let mut reader = Reader::new(row, R::TABLE.columns);
    TailnetId::read(&mut reader)
        .and_then(|_| R::read(&mut reader))
        .map_err(|source| RowError::new(R::TABLE.name, describe_key(row, R::TABLE), source))
}

/// The key of a row that may hold anything, without the tailnet's id.
fn describe_key(row: &dyn Readable, table: &Table) -> String {
    let part = |index| match (row.int(index), row.text(index)) {
        (Ok(Some(number)), _) => number.to_string(),
        (_, Ok(Some(text))) => text,
        _ => "?".to_owned(),
    };
    (1..table.key.len()).map(part).collect::<Vec<_>>().join(" ")
}

impl<R> Readable for R
where
    R: sqlx::Row,
    usize: ColumnIndex<R>,
    i64: for<'r> Decode<'r, R::Database> + Type<R::Database>,
    String: for<'r> Decode<'r, R::Database> + Type<R::Database>,
    bool: for<'r> Decode<'r, R::Database> + Type<R::Database>,
{
    fn int(&self, index: usize) -> Result<Option<i64>, sqlx::Error> {
        self.try_get(index)
    }

    fn text(&self, index: usize) -> Result<Option<String>, sqlx::Error> {
        self.try_get(index)
    }

    fn flag(&self, index: usize) -> Result<Option<bool>, sqlx::Error> {
        self.try_get(index)
    }
}

impl Raw for i64 {
    fn into_value(raw: Option<Self>) -> Value {
        Value::Int(raw)
    }

    fn read(row: &dyn Readable, index: usize) -> Result<Option<Self>, sqlx::Error> {
        row.int(index)
    }
}

impl Raw for String {
    fn into_value(raw: Option<Self>) -> Value {
        Value::Text(raw)
    }

    fn read(row: &dyn Readable, index: usize) -> Result<Option<Self>, sqlx::Error> {
        row.text(index)
    }
}

impl Raw for bool {
    fn into_value(raw: Option<Self>) -> Value {
        Value::Flag(raw)
    }

    fn read(row: &dyn Readable, index: usize) -> Result<Option<Self>, sqlx::Error> {
        row.flag(index)
    }
}

impl<T: Column> Field for T {
    fn write(&self, row: &mut Row) -> Result<(), Unfit> {
        row.push(T::Raw::into_value(Some(self.to_raw()?)));
        Ok(())
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ReadError> {
        match reader.next()? {
            Some(raw) => T::from_raw(raw).map_err(|why| reader.error(why)),
            None => T::from_null().ok_or_else(|| reader.error("is NULL")),
        }
    }
}

impl<T: Column> Field for Option<T> {
    fn write(&self, row: &mut Row) -> Result<(), Unfit> {
        row.push(T::Raw::into_value(self.as_ref().map(T::to_raw).transpose()?));
        Ok(())
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, ReadError> {
        let raw = reader.next()?;
        raw.map(T::from_raw).transpose().map_err(|why| reader.error(why))
    }
}

#[cfg(test)]
mod tests;
