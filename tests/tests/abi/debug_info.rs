//! Just enough of DWARF: the structs of an object with their fields' places, and the types of its variables.

use std::borrow::Cow;
use std::collections::BTreeMap;

use anyhow::Result;
use gimli::{AttributeValue, DebuggingInformationEntry, DwarfSections, EndianSlice, NativeEndian};
use object::{Object as _, ObjectSection as _};

type Slice<'a> = EndianSlice<'a, NativeEndian>;
type Entry<'a> = DebuggingInformationEntry<Slice<'a>>;

/// Size of a struct, and name and offset of each field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    pub size: u64,
    pub members: Vec<(String, u64)>,
}

/// What an object says of its own types.
#[derive(Debug, Default)]
pub struct DebugInfo {
    /// By path, such as `crate::module::Name`; several if several units have it.
    pub structs: BTreeMap<String, Vec<Layout>>,
    /// Name of each static's type.
    pub variables: BTreeMap<String, String>,
}

impl DebugInfo {
    /// Reads the sections as they lie in the object: in one that is not linked further, what a relocation would add is
    /// the address of a section, and that is zero.
    pub fn read(object: &[u8]) -> Result<Self> {
        let file = object::File::parse(object)?;
        let sections = DwarfSections::load(|id| {
            let data = file.section_by_name(id.name());
            data.map_or(Ok(Cow::Borrowed(&[][..])), |section| section.uncompressed_data())
        })?;
        let dwarf = sections.borrow(|section| EndianSlice::new(section, NativeEndian));
        let mut info = Self::default();
        let mut headers = dwarf.units();
        while let Some(header) = headers.next()? {
            info.unit(&dwarf, &dwarf.unit(header)?)?;
        }
        Ok(info)
    }

    fn unit<'a>(&mut self, dwarf: &gimli::Dwarf<Slice<'a>>, unit: &gimli::Unit<Slice<'a>>) -> Result<()> {
        let text = |entry: &Entry<'a>, name| -> Result<Option<String>> {
            let Some(value) = entry.attr_value(name) else {
                return Ok(None);
            };
            Ok(Some(
                dwarf.attr_string(unit, value)?.to_string_lossy().into_owned(),
            ))
        };
        let mut path: Vec<(isize, String)> = Vec::new();
        let mut open: Option<(isize, String)> = None;
        let mut entries = unit.entries();
        while let Some(entry) = entries.next_dfs()? {
            let depth = entry.depth();
            path.retain(|(at, _)| *at < depth);
            open = open.filter(|(at, _)| *at < depth);
            let Some(name) = text(entry, gimli::DW_AT_name)? else {
                continue;
            };
            match entry.tag() {
                gimli::DW_TAG_namespace => path.push((depth, name)),
                gimli::DW_TAG_structure_type => {
                    let scope = path.iter().map(|(_, name)| format!("{name}::"));
                    let name = scope.collect::<String>() + &name;
                    let size = number(entry, gimli::DW_AT_byte_size).unwrap_or_default();
                    let members = Vec::new();
                    self.structs
                        .entry(name.clone())
                        .or_default()
                        .push(Layout { size, members });
                    open = Some((depth, name));
                }
                gimli::DW_TAG_member => {
                    let within = open.as_ref().filter(|(at, _)| *at == depth - 1);
                    let layouts = within.and_then(|(_, owner)| self.structs.get_mut(owner));
                    if let Some(layout) = layouts.and_then(|layouts| layouts.last_mut()) {
                        let at = number(entry, gimli::DW_AT_data_member_location).unwrap_or_default();
                        layout.members.push((name, at));
                    }
                }
                gimli::DW_TAG_variable => {
                    if let Some(AttributeValue::UnitRef(at)) = entry.attr_value(gimli::DW_AT_type)
                        && let Some(kind) = text(&unit.entry(at)?, gimli::DW_AT_name)?
                    {
                        self.variables.insert(name, plain(&kind));
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn number(entry: &Entry<'_>, name: gimli::DwAt) -> Option<u64> {
    entry.attr_value(name)?.udata_value()
}

/// A name as it was before the linker wrote each sign that C does not know as `_XX_`, its code in hexadecimal.
fn plain(name: &str) -> String {
    let sign = |text: &str| {
        let code = text.strip_prefix('_')?.get(..3)?.strip_suffix('_')?;
        let sign = char::from(u8::from_str_radix(code, 16).ok()?);
        (sign.is_ascii_punctuation() || sign == ' ').then_some(sign)
    };
    let mut out = String::new();
    let mut rest = name;
    while let Some(next) = rest.chars().next() {
        let (taken, length) = sign(rest).map_or((next, next.len_utf8()), |sign| (sign, 4));
        out.push(taken);
        rest = &rest[length..];
    }
    out
}
