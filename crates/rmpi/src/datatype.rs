//! Element types of messages: plain numbers. A message carries its type, and the receiver compares it.

use rmpi_coll::kernels::DataType;

mod sealed {
    pub trait Sealed {}
}

/// A type whose slices can be sent, received and reduced. Implemented for the numbers of this library; sealed.
pub trait Datatype: bytemuck::Pod + Send + Sync + sealed::Sealed {
    /// Which one it is.
    const TYPE: DataType;
}

macro_rules! datatype {
    ($($t:ty => $d:ident),* $(,)?) => {$(
        impl sealed::Sealed for $t {}
        impl Datatype for $t {
            const TYPE: DataType = DataType::$d;
        }
    )*};
}

datatype! {
    f64 => F64, f32 => F32, half::f16 => F16, half::bf16 => BF16,
    i8 => I8, i16 => I16, i32 => I32, i64 => I64,
    u8 => U8, u16 => U16, u32 => U32, u64 => U64,
}
#[cfg(target_pointer_width = "64")]
datatype! { isize => I64, usize => U64 }

/// The number of a type in message headers; never 0.
#[inline]
pub(crate) fn code(t: DataType) -> u16 {
    // Types are listed in the order in which they are declared.
    t as u16 + 1
}

/// The type of a number in a header, for messages.
pub(crate) fn name(code: u16) -> String {
    match DataType::ALL.iter().zip(1..).find(|(_, n)| *n == code) {
        Some((d, _)) => format!("{d:?}").to_lowercase(),
        None => format!("unknown type {code:#06x}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_distinct_and_named() {
        for t in DataType::ALL {
            assert!(code(t) != 0);
            assert_eq!(name(code(t)), format!("{t:?}").to_lowercase());
        }
        assert_eq!(
            (name(code(<f32 as Datatype>::TYPE)), name(99)),
            ("f32".into(), "unknown type 0x0063".into())
        );
    }
}
