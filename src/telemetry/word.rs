//! Closed sets of label values, so that no peer can make a series: every child is there from the start, at 0.

/// A closed set of label values.
pub(super) trait Word: Copy + 'static {
    /// Every value, in the order of the discriminants.
    const ALL: &'static [Self];

    /// The label value.
    fn word(self) -> &'static str;

    /// Its place in [`ALL`](Self::ALL).
    fn index(self) -> usize;
}

macro_rules! words {
    ($(#[$about:meta])* $vis:vis enum $name:ident { $($(#[$meaning:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        $vis enum $name { $($(#[$meaning])* $variant,)+ }

        impl $crate::telemetry::word::Word for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];

            fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }

            fn index(self) -> usize {
                self as usize
            }
        }
    };
}

pub(super) use words;

/// Fails unless every word is a plain label value at its own index.
#[cfg(test)]
pub(super) fn check<W: Word>() {
    for (at, word) in W::ALL.iter().enumerate() {
        assert_eq!(word.index(), at);
        assert!(word.word().bytes().all(|c| c.is_ascii_lowercase() || c == b'_'), "{}", word.word());
    }
}
