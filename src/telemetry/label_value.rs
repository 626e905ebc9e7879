//! Closed sets of label values. Every series exists from the start, at 0, and no peer can create another.

/// A closed set of label values.
pub(crate) trait LabelValue: Copy + 'static {
    /// Every value, in the order of the discriminants.
    const ALL: &'static [Self];

    fn as_str(self) -> &'static str;

    /// The position in [`ALL`](Self::ALL).
    fn index(self) -> usize;
}

macro_rules! label_values {
    ($($(#[$about:meta])* $vis:vis enum $name:ident { $($(#[$meaning:meta])* $variant:ident = $text:literal,)+ })+) => {$(
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        $vis enum $name { $($(#[$meaning])* $variant,)+ }

        impl $crate::telemetry::LabelValue for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)+ }
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    )+};
}

pub(crate) use label_values;

/// Fails unless every value is a plain label value at its own index.
#[cfg(test)]
pub(crate) fn check_labels<V: LabelValue>() {
    for (at, value) in V::ALL.iter().enumerate() {
        assert_eq!(value.index(), at);
        assert!(value.as_str().bytes().all(|c| c.is_ascii_lowercase() || c == b'_'), "{}", value.as_str());
    }
}
