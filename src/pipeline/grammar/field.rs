//! One row of the grammar's tables.

use crate::config::shape::{Default, Field, Type};

pub(super) const fn field(
    name: &'static str,
    ty: Type,
    default: Default,
    doc: &'static str,
) -> Field {
    Field {
        name,
        ty,
        default,
        doc,
    }
}
