//! One family: its names, and which samples are its own.

use super::line::Kind;

#[derive(Clone, Debug)]
pub(super) struct Family {
    pub(super) name: Vec<u8>,
    kind: Kind,
}

impl Family {
    pub(super) fn new(name: &[u8], kind: Kind) -> Self {
        Self { name: name.to_vec(), kind }
    }

    pub(super) fn set_kind(&mut self, kind: Kind) {
        self.kind = kind;
    }

    /// True if a sample of that name belongs here.
    pub(super) fn owns(&self, sample: &[u8]) -> bool {
        let suffixes: &[&[u8]] = match self.kind {
            Kind::Counter => &[b"", b"_total", b"_created"],
            Kind::Info => &[b"", b"_info"],
            Kind::Histogram => &[b"", b"_bucket", b"_sum", b"_count", b"_created"],
            Kind::GaugeHistogram => &[b"", b"_bucket", b"_gsum", b"_gcount"],
            Kind::Summary => &[b"", b"_sum", b"_count", b"_created"],
            Kind::Plain => &[b""],
        };
        sample.strip_prefix(self.name.as_slice()).is_some_and(|suffix| suffixes.contains(&suffix))
    }

    /// Calls `ask` with every name of the family. OpenMetrics names a counter `requests` and its sample `requests_total`;
    /// the older format names both `requests_total`. A filter means the same family in both.
    pub(super) fn with_names<T>(&self, ask: impl FnOnce(&[&[u8]]) -> T) -> T {
        let suffix: &[u8] = match self.kind {
            Kind::Counter => b"_total",
            Kind::Info => b"_info",
            _ => return ask(&[&self.name]),
        };
        match self.name.strip_suffix(suffix) {
            Some(bare) => ask(&[&self.name, bare]),
            None => ask(&[&self.name, &[self.name.as_slice(), suffix].concat()]),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(name: &str, kind: Kind) -> Vec<String> {
        let text = |names: &[&[u8]]| names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
        Family::new(name.as_bytes(), kind).with_names(text)
    }

    #[test]
    fn a_counter_goes_by_the_same_names_in_both_formats() {
        assert_eq!(names("hits", Kind::Counter), ["hits", "hits_total"]);
        assert_eq!(names("hits_total", Kind::Counter), ["hits_total", "hits"]);
        assert_eq!(names("build", Kind::Info), ["build", "build_info"]);
        assert_eq!(names("hits_total", Kind::Plain), ["hits_total"]);
    }

    #[test]
    fn a_family_owns_the_series_of_its_kind_and_no_others() {
        let owns = |kind, sample: &str| Family::new(b"a", kind).owns(sample.as_bytes());
        assert!(owns(Kind::Histogram, "a_bucket") && owns(Kind::Histogram, "a_created"));
        assert!(owns(Kind::Summary, "a") && owns(Kind::Summary, "a_count") && !owns(Kind::Summary, "a_bucket"));
        assert!(owns(Kind::GaugeHistogram, "a_gsum") && owns(Kind::Info, "a_info"));
        assert!(owns(Kind::Counter, "a_total") && !owns(Kind::Counter, "a_total_b"));
        assert!(owns(Kind::Plain, "a") && !owns(Kind::Plain, "a_total") && !owns(Kind::Plain, "b"));
    }
}
