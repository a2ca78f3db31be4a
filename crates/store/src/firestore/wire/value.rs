//! Documents, the values of their fields, and writes, in the form of the service's API.

use std::collections::HashMap;

use gcloud_sdk::{
    google::firestore::v1::{
        ArrayValue, Document, DocumentMask, Precondition, Value, Write,
        document_transform::{
            FieldTransform,
            field_transform::{ServerValue, TransformType},
        },
        precondition::ConditionType,
        value::ValueType,
        write::Operation,
    },
    prost_types::Timestamp,
};
use nostr_protocol::{PublicKey, UnixSecs};

/// The version of a document that a write requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    /// The document does not exist.
    Absent,
    /// The document has this update time.
    At(Timestamp),
}

impl Version {
    /// The version of a document that was read, or was not found.
    pub(crate) fn of(document: Option<&Document>) -> Self {
        document.and_then(|it| it.update_time).map_or(Self::Absent, Self::At)
    }

    fn precondition(self) -> Precondition {
        let condition = match self {
            Self::Absent => ConditionType::Exists(false),
            Self::At(time) => ConditionType::UpdateTime(time),
        };
        Precondition { condition_type: Some(condition) }
    }
}

/// Fields of a document, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fields(HashMap<String, Value>);

impl Fields {
    pub(crate) fn with(mut self, name: &str, value: ValueType) -> Self {
        self.0.insert(name.to_owned(), Value { value_type: Some(value) });
        self
    }

    pub(crate) fn int(self, name: &str, value: i64) -> Self {
        self.with(name, ValueType::IntegerValue(value))
    }

    /// A time or number. Those beyond the service's range become its largest number.
    pub(crate) fn number(self, name: &str, value: u64) -> Self {
        self.int(name, i64::try_from(value).unwrap_or(i64::MAX))
    }

    pub(crate) fn bytes(self, name: &str, value: Vec<u8>) -> Self {
        self.with(name, ValueType::BytesValue(value))
    }

    pub(crate) fn text(self, name: &str, value: &str) -> Self {
        self.with(name, ValueType::StringValue(value.to_owned()))
    }

    pub(crate) fn flag(self, name: &str, value: bool) -> Self {
        self.with(name, ValueType::BooleanValue(value))
    }

    pub(crate) fn ints(self, name: &str, values: &[i64]) -> Self {
        self.with(name, array(values))
    }

    pub(crate) fn texts<'t>(self, name: &str, texts: impl IntoIterator<Item = &'t str>) -> Self {
        let value = |text: &str| Value { value_type: Some(ValueType::StringValue(text.to_owned())) };
        self.with(name, ValueType::ArrayValue(ArrayValue { values: texts.into_iter().map(value).collect() }))
    }

    fn document(self, name: String) -> Document {
        Document { name, fields: self.0, create_time: None, update_time: None }
    }
}

/// A list of numbers.
pub(crate) fn array(values: &[i64]) -> ValueType {
    let values = values.iter().map(|value| Value { value_type: Some(ValueType::IntegerValue(*value)) }).collect();
    ValueType::ArrayValue(ArrayValue { values })
}

/// Access to the fields of a document. Each is `None` if it is missing or of another type.
pub(crate) trait ReadFields {
    fn field(&self, name: &str) -> Option<&ValueType>;

    fn int(&self, name: &str) -> Option<i64> {
        match self.field(name) {
            Some(ValueType::IntegerValue(value)) => Some(*value),
            _ => None,
        }
    }

    fn secs(&self, name: &str) -> Option<UnixSecs> {
        self.int(name).and_then(|value| u64::try_from(value).ok())
    }

    fn bytes(&self, name: &str) -> Option<&[u8]> {
        match self.field(name) {
            Some(ValueType::BytesValue(value)) => Some(value),
            _ => None,
        }
    }

    fn text(&self, name: &str) -> Option<&str> {
        match self.field(name) {
            Some(ValueType::StringValue(value)) => Some(value),
            _ => None,
        }
    }

    fn texts(&self, name: &str) -> Option<Vec<&str>> {
        let Some(ValueType::ArrayValue(array)) = self.field(name) else { return None };
        let texts = array.values.iter().map(|value| match &value.value_type {
            Some(ValueType::StringValue(text)) => Some(text.as_str()),
            _ => None,
        });
        texts.collect()
    }

    fn flag(&self, name: &str) -> bool {
        matches!(self.field(name), Some(ValueType::BooleanValue(true)))
    }

    fn time(&self, name: &str) -> Option<Timestamp> {
        match self.field(name) {
            Some(ValueType::TimestampValue(value)) => Some(*value),
            _ => None,
        }
    }
}

impl ReadFields for Document {
    fn field(&self, name: &str) -> Option<&ValueType> {
        self.fields.get(name)?.value_type.as_ref()
    }
}

/// Writes a document whole, unconditionally.
pub(crate) fn set(name: String, fields: Fields) -> Write {
    Write {
        operation: Some(Operation::Update(fields.document(name))),
        update_mask: None,
        update_transforms: Vec::new(),
        current_document: None,
    }
}

/// Writes a document whole, in place of the expected version.
pub(crate) fn put(name: String, fields: Fields, expected: Version) -> Write {
    Write { current_document: Some(expected.precondition()), ..set(name, fields) }
}

/// Removes a document, if it exists.
pub(crate) fn delete(name: String) -> Write {
    Write {
        operation: Some(Operation::Delete(name)),
        update_mask: None,
        update_transforms: Vec::new(),
        current_document: None,
    }
}

/// Removes a document of the expected version.
pub(crate) fn delete_expected(name: String, expected: Version) -> Write {
    Write { current_document: Some(expected.precondition()), ..delete(name) }
}

/// Changes nothing, and fails unless the document has the expected version. An update with an empty mask keeps the
/// update time, and a delete of a missing document removes nothing.
pub(crate) fn verify(name: String, expected: Version) -> Write {
    match expected {
        Version::Absent => delete_expected(name, expected),
        Version::At(_) => {
            Write { update_mask: Some(DocumentMask::default()), ..put(name, Fields::default(), expected) }
        }
    }
}

/// Sets a field to the time at which the service receives the request, in milliseconds.
pub(crate) fn stamped(mut write: Write, field: &str) -> Write {
    write.update_transforms.push(FieldTransform {
        field_path: field.to_owned(),
        transform_type: Some(TransformType::SetToServerValue(ServerValue::RequestTime.into())),
    });
    write
}

/// Raises a number to at least `to`, also beside other writers. Makes the document if it is missing.
pub(crate) fn raise(name: String, field: &str, to: u64) -> Write {
    let to = Value { value_type: Some(ValueType::IntegerValue(i64::try_from(to).unwrap_or(i64::MAX))) };
    let transform = FieldTransform { field_path: field.to_owned(), transform_type: Some(TransformType::Maximum(to)) };
    Write {
        update_mask: Some(DocumentMask::default()),
        update_transforms: vec![transform],
        ..set(name, Fields::default())
    }
}

/// Adds to a number, also beside other writers. Makes the document if it is missing.
pub(crate) fn increase(name: String, field: &str, by: i64) -> Write {
    let by = Value { value_type: Some(ValueType::IntegerValue(by)) };
    let transform = FieldTransform { field_path: field.to_owned(), transform_type: Some(TransformType::Increment(by)) };
    Write {
        update_mask: Some(DocumentMask::default()),
        update_transforms: vec![transform],
        ..set(name, Fields::default())
    }
}

/// The last part of a document's name.
pub(crate) fn id_of(document: &Document) -> &str {
    document.name.rsplit('/').next().unwrap_or_default()
}

/// Lower-case hex digits of bytes.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes.iter().flat_map(|byte| [byte >> 4, byte & 15].map(|digit| char::from(DIGITS[usize::from(digit)]))).collect()
}

/// Reads packed values from the front. Each read gives `None` if too few bytes are left.
pub(crate) struct Unpack<'a>(pub(crate) &'a [u8]);

impl<'a> Unpack<'a> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn key(&mut self) -> Option<PublicKey> {
        self.array().map(PublicKey::from_bytes)
    }
}
