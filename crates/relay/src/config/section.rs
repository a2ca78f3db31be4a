//! A section of the configuration, made from one entry a key.

use serde_json::Value as Shown;

use super::{
    Config, env,
    value::{Problem, Value},
};

/// Makes a section: its struct, the struct's `Default`, and the [`Section`] that `keys` lists.
///
/// ```text
/// section! {
///     /// The sentence above the section's table, and the struct's documentation.
///     pub struct Data for "data" in config.data {
///         /// The sentence beside the key in that table, and the field's documentation.
///         sync_interval_ms: u64 = "200" in "ms", by integer(1..=60_000);
///     }
/// }
/// ```
///
/// An entry reads: field, type, default, unit (numbers only), and the method of [`Value`] that reads the key.
/// - The default is the text that an operator would write into a variable; empty text stands for no value and for an
///   empty list. A default that a text cannot spell is a pair instead: `(cores(), "the machine's cores")`.
/// - `.map(…)` after the method turns the value that it read into the field's type.
/// - `as "…"` after the field gives the key's name, if it is not the field's.
/// - `with inner: Inner` after the section puts another section's struct into this one.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        pub struct $name:ident for $path:literal in config.$($within:ident).+ {
            $(
                $(#[doc = $help:literal])+
                $field:ident $(as $key:literal)?: $type:ty = $default:tt $(in $unit:literal)?,
                    by $read:ident($($how:expr),*) $(.map($into:expr))?;
            )+
        }
        $(with $inner:ident: $inner_type:ty)?
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            $(
                $(#[doc = $help])+
                pub $field: $type,
            )+
            $(
                #[doc = concat!("The section `[", $path, ".", stringify!($inner), "]`.")]
                pub $inner: $inner_type,
            )?
        }

        impl $name {
            pub(super) const SECTION: $crate::config::section::Section = $crate::config::section::Section {
                path: $path,
                about: concat!($($about),+).trim_ascii(),
                keys: &[$(
                    $crate::config::section::Key {
                        section: $path,
                        name: section!(@name $field $($key)?),
                        default: section!(@shown $default),
                        unit: concat!($($unit)?),
                        help: concat!($($help),+).trim_ascii(),
                        set: |config, value| {
                            Self::of(config).$field = value.$read($($how),*)$(.map($into))??;
                            Ok(())
                        },
                        show: |config| $crate::config::shown::Shown::shown(&Self::within(config).$field),
                        take_over: |config, next| {
                            let next = &Self::within(next).$field;
                            let field = &mut Self::of(config).$field;
                            let differs = field != next;
                            field.clone_from(next);
                            differs
                        },
                    }
                ),+],
            };

            const fn within(config: &$crate::config::Config) -> &Self {
                &config.$($within).+
            }

            fn of(config: &mut $crate::config::Config) -> &mut Self {
                &mut config.$($within).+
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($field: section!(@value $default, |value| value.$read($($how),*)$(.map($into))?),)+
                    $($inner: <$inner_type>::default(),)?
                }
            }
        }
    };
    (@name $field:ident) => { stringify!($field) };
    (@name $field:ident $key:literal) => { $key };
    (@shown ($value:expr, $words:literal)) => { $crate::config::section::ShownDefault::Words($words) };
    (@shown $text:literal) => { $crate::config::section::ShownDefault::Text($text) };
    (@value ($value:expr, $words:literal), $read:expr) => { $value };
    (@value $text:literal, $read:expr) => { $crate::config::section::read_default($text, $read) };
}
pub(super) use section;

/// A section of the file.
#[derive(Debug)]
pub(super) struct Section {
    /// The name between brackets, `extensions.mls_gateway`.
    pub(super) path: &'static str,
    /// One sentence about the section.
    pub(super) about: &'static str,
    /// The section's keys, in the order of the table.
    pub(super) keys: &'static [Key],
}

/// A key of a section.
#[derive(Debug)]
pub(super) struct Key {
    /// The path of the key's section.
    pub(super) section: &'static str,
    /// The name in front of the equals sign.
    pub(super) name: &'static str,
    /// The value of a key that nobody sets.
    pub(super) default: ShownDefault,
    /// The unit of a number; empty for everything else.
    pub(super) unit: &'static str,
    /// One sentence about the key, for operators.
    pub(super) help: &'static str,
    /// Reads a value and writes it into the key's field.
    pub(super) set: fn(&mut Config, &Value) -> Result<(), Problem>,
    /// The value as an operator reads it; `None` for a secret.
    pub(super) show: fn(&Config) -> Option<Shown>,
    /// Copies the key's value out of another configuration; `false` if it is the same.
    pub(super) take_over: fn(&mut Config, &Config) -> bool,
}

/// The default of a key, as operators see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ShownDefault {
    /// The text that a variable would hold; empty for no value.
    Text(&'static str),
    /// A description, of a default that depends on the machine or on another key.
    Words(&'static str),
}

impl Key {
    /// The key with its section, `server.port`.
    pub(super) fn path(&self) -> String {
        format!("{}.{}", self.section, self.name)
    }

    /// The variable that sets the key, `RNOSTR_SERVER__PORT`.
    pub(super) fn variable(&self) -> String {
        env::variable(self.section, self.name)
    }
}

/// The value that `text`, a key's default, stands for.
pub(super) fn read_default<T>(text: &str, read: impl Fn(&Value) -> Result<T, Problem>) -> T {
    // `Config::default()` reads every default, and each start of the relay and most tests call it.
    read(&Value::Variable(text.to_owned())).expect("a default that its own key takes")
}
