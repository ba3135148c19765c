// SPDX-License-Identifier: Apache-2.0 OR BSD-3-Clause
//! What `coax-abi` says of the wire: constants and structures, with what is written about them.
//!
//! Read from its source, since only that has the words. Values and sizes are compared with the crate's by a test.

use anyhow::{bail, Context as _, Result};
use syn::{Attribute, BinOp, Expr, Fields, Item, Lit, Meta, Type};

/// The source.
const SOURCE: &str = include_str!("../../src/wire.rs");

/// A constant of an integer type.
#[derive(Clone, Debug)]
pub struct Constant {
    /// Name.
    pub name: String,
    /// Value.
    pub value: u64,
    /// Value as it is to be shown.
    pub shown: String,
    /// What is written about it.
    pub about: String,
}

/// A structure of the wire.
#[derive(Clone, Debug)]
pub struct Structure {
    /// Name.
    pub name: String,
    /// What is written about it.
    pub about: String,
    /// Fields in order.
    pub fields: Vec<Field>,
    /// Bytes of all.
    pub bytes: u64,
}

/// A field of a structure.
#[derive(Clone, Debug)]
pub struct Field {
    /// Name.
    pub name: String,
    /// Offset in bytes.
    pub offset: u64,
    /// Type as it is to be shown.
    pub shown: String,
    /// What is written about it.
    pub about: String,
}

/// All of the wire.
#[derive(Debug, Default)]
pub struct Wire {
    /// What is written about the whole.
    pub about: String,
    /// Constants in order.
    pub constants: Vec<Constant>,
    /// Structures in order.
    pub structures: Vec<Structure>,
}

impl Wire {
    /// Reads the source.
    ///
    /// # Errors
    ///
    /// There is something in it that this does not know.
    pub fn read() -> Result<Self> {
        let file = syn::parse_file(SOURCE)?;
        let mut wire = Self {
            about: words(&file.attrs, "\n"),
            ..Self::default()
        };
        for item in &file.items {
            match item {
                Item::Const(item) if matches!(*item.ty, Type::Path(_)) => {
                    let name = item.ident.to_string();
                    let value = wire.value(&item.expr).with_context(|| name.clone())?;
                    wire.constants.push(Constant {
                        name,
                        value,
                        shown: shown(&item.expr, value),
                        about: words(&item.attrs, " "),
                    });
                }
                Item::Struct(item) => {
                    let structure = wire.structure(item);
                    let structure = structure.with_context(|| item.ident.to_string())?;
                    wire.structures.push(structure);
                }
                _ => {}
            }
        }
        Ok(wire)
    }

    /// The structure of that name.
    ///
    /// # Errors
    ///
    /// There is none.
    pub fn structure_named(&self, name: &str) -> Result<&Structure> {
        let found = self
            .structures
            .iter()
            .find(|structure| structure.name == name);
        found.with_context(|| format!("No structure {name}"))
    }

    fn structure(&self, item: &syn::ItemStruct) -> Result<Structure> {
        let Fields::Named(named) = &item.fields else {
            bail!("No named fields");
        };
        let (mut fields, mut bytes) = (Vec::new(), 0);
        for field in &named.named {
            let (size, shown) = self.layout(&field.ty)?;
            fields.push(Field {
                name: field
                    .ident
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                offset: bytes,
                shown,
                about: words(&field.attrs, " "),
            });
            bytes += size;
        }
        Ok(Structure {
            name: item.ident.to_string(),
            about: words(&item.attrs, " "),
            fields,
            bytes,
        })
    }

    /// Bytes of a type, and how it is shown.
    fn layout(&self, ty: &Type) -> Result<(u64, String)> {
        match ty {
            Type::Path(path) => match path.path.get_ident().map(ToString::to_string).as_deref() {
                Some("U32") => Ok((4, "u32".into())),
                Some("U64") => Ok((8, "u64".into())),
                Some("u8") => Ok((1, "u8".into())),
                other => bail!("Type {other:?}"),
            },
            Type::Array(array) => {
                let (bytes, shown) = self.layout(&array.elem)?;
                let count = self.value(&array.len)?;
                Ok((bytes * count, format!("{shown}[{count}]")))
            }
            _ => bail!("A type that is none of the wire"),
        }
    }

    fn value(&self, expr: &Expr) -> Result<u64> {
        match expr {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Int(number) => Ok(number.base10_parse()?),
                _ => bail!("A literal that is no integer"),
            },
            Expr::Path(path) => {
                let name = path.path.require_ident()?.to_string();
                let constant = self.constants.iter().find(|constant| constant.name == name);
                Ok(constant
                    .with_context(|| format!("No constant {name}"))?
                    .value)
            }
            Expr::Binary(binary) => {
                let (left, right) = (self.value(&binary.left)?, self.value(&binary.right)?);
                match binary.op {
                    BinOp::Shl(_) => Ok(left << right),
                    _ => bail!("An operator that is not known"),
                }
            }
            Expr::Call(call) => match call.args.first() {
                Some(Expr::Unary(unary)) => match &*unary.expr {
                    Expr::Lit(literal) => match &literal.lit {
                        Lit::ByteStr(bytes) => Ok(bytes
                            .value()
                            .iter()
                            .rev()
                            .fold(0, |value, &byte| value << 8 | u64::from(byte))),
                        _ => bail!("A call with a literal that is no string"),
                    },
                    _ => bail!("A call that is not known"),
                },
                _ => bail!("A call that is not known"),
            },
            _ => bail!("An expression that is not known"),
        }
    }
}

/// In hexadecimal if the source has it so.
fn shown(expr: &Expr, value: u64) -> String {
    match expr {
        Expr::Lit(literal) => match &literal.lit {
            Lit::Int(number) if number.to_string().starts_with("0x") => number.to_string(),
            _ => value.to_string(),
        },
        Expr::Call(_) => format!("{value:#x}"),
        _ => value.to_string(),
    }
}

/// What is written in the documentation of an item, lines joined by `joint`, names as code.
fn words(attributes: &[Attribute], joint: &str) -> String {
    let lines = attributes
        .iter()
        .filter_map(|attribute| match &attribute.meta {
            Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
                Expr::Lit(literal) => match &literal.lit {
                    Lit::Str(text) => Some(text.value().trim().to_owned()),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        });
    let text = lines.collect::<Vec<_>>().join(joint);
    text.replace("[`", "`").replace("`]", "`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use coax_abi::wire;

    #[test]
    fn values_and_sizes_are_those_of_the_crate() -> Result<()> {
        let wire = Wire::read()?;
        let sizes = [
            ("Config", size_of::<wire::Config>()),
            ("ControlRequest", size_of::<wire::ControlRequest>()),
            ("ControlReply", size_of::<wire::ControlReply>()),
            ("DeviceStats", size_of::<wire::DeviceStats>()),
            ("CopyHeader", size_of::<wire::CopyHeader>()),
            ("CopyEntry", size_of::<wire::CopyEntry>()),
            ("CopyReply", size_of::<wire::CopyReply>()),
            ("DeviceRequest", size_of::<wire::DeviceRequest>()),
            ("TranslationMessage", size_of::<wire::TranslationMessage>()),
            ("TranslationEntry", size_of::<wire::TranslationEntry>()),
            ("InvalidateReply", size_of::<wire::InvalidateReply>()),
            ("Command", size_of::<wire::Command>()),
            ("CommandReply", size_of::<wire::CommandReply>()),
        ];
        assert_eq!(wire.structures.len(), sizes.len());
        for (name, size) in sizes {
            assert_eq!(wire.structure_named(name)?.bytes, size as u64, "{name}");
        }
        let values = [
            ("MAGIC", wire::MAGIC.into()),
            ("PAGE_SIZE", wire::PAGE_SIZE),
            ("ACCESS_ATOMIC", wire::ACCESS_ATOMIC.into()),
            ("RESPONSE_FAILURE", wire::RESPONSE_FAILURE.into()),
            ("COMMAND_ARGS", wire::COMMAND_ARGS as u64),
        ];
        for (name, value) in values {
            let found = wire.constants.iter().find(|constant| constant.name == name);
            assert_eq!(found.map(|constant| constant.value), Some(value), "{name}");
        }
        Ok(())
    }
}
