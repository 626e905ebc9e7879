//! Templates of configuration files, over a list of targets.
//!
//! The language is Jinja2's, by minijinja. Nothing is escaped as for HTML, and a line that holds only a `{% tag %}` leaves no
//! line. Printing what is not there is an error; asking for it in `if` or `default` is none.

use std::{collections::BTreeMap, error::Error as _, path::Path};

use anyhow::anyhow;
use minijinja::{AutoEscape, Environment, Error, UndefinedBehavior, context};
use serde::Serialize;

use super::polling::Group;

/// One target with the labels of its group.
#[derive(Serialize)]
struct Target<'a> {
    target: &'a str,
    labels: &'a BTreeMap<String, String>,
}

/// The text that the template at `path`, whose content is `template`, makes of the list.
///
/// # Errors
/// One line with the file, the line in it and the reason.
pub(super) fn render<'a>(path: &Path, template: &str, groups: &'a [Group]) -> anyhow::Result<String> {
    let mut environment = Environment::new();
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.set_keep_trailing_newline(true);
    environment.set_trim_blocks(true);
    environment.set_lstrip_blocks(true);
    environment.add_filter("ident", |text: &str| text.replace(|c: char| !c.is_ascii_alphanumeric(), "_"));
    environment.add_filter("host", |text: &str| text.rsplit_once(':').map_or(text, |(host, _)| host).to_owned());
    environment.add_filter("port", |text: &str| text.rsplit_once(':').map_or("", |(_, port)| port).to_owned());
    let flat = |Group { targets, labels }: &'a Group| targets.iter().map(move |target| Target { target, labels });
    let targets: Vec<Target<'_>> = groups.iter().flat_map(flat).collect();
    environment
        .template_from_str(template)
        .and_then(|template| template.render(context! { groups, targets }))
        .map_err(|error| explained(path, &error))
}

/// The fault in one line.
fn explained(path: &Path, error: &Error) -> anyhow::Error {
    let line = error.line().unwrap_or(1);
    let mut reason = error.kind().to_string();
    for detail in error.detail().map(str::to_owned).into_iter().chain(error.source().map(ToString::to_string)) {
        reason = format!("{reason}: {detail}");
    }
    anyhow!("{}:{line}: {}", path.display(), reason.replace('\n', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(targets: &[&str], labels: &[(&str, &str)]) -> Group {
        Group {
            targets: targets.iter().map(|target| (*target).to_owned()).collect(),
            labels: labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        }
    }

    fn rendered(template: &str) -> Result<String, String> {
        let web = group(&["a:1", "[::1]:2"], &[("service", "web <é>"), ("instance", "w")]);
        let groups = [web, group(&["b:3"], &[("instance", "x")])];
        render(Path::new("t.j2"), template, &groups).map_err(|error| error.to_string())
    }

    #[test]
    fn a_template_sees_the_groups_and_a_flat_list_of_targets() {
        assert_eq!(rendered("{{ groups|length }} {{ targets|length }}\n").expect("renders"), "2 3\n");
        let lines = "{% for t in targets %}\n  {% if t.labels.service %}\n{{ t.target }} {{ t.labels.service }}\n  {% endif %}\n{% endfor %}\n";
        assert_eq!(rendered(lines).expect("renders"), "a:1 web <é>\n[::1]:2 web <é>\n");
        let filters = "{% for t in targets %}{{ t.target|host }} {{ t.target|port }} {{ t.labels.service|default('-')|ident }};{% endfor %}";
        assert_eq!(rendered(filters).expect("renders"), "a 1 web____;[::1] 2 web____;b 3 _;");
        let by_service = "{% for name, members in targets|groupby('labels.service', default='none') %}{{ name }}={{ members|map(attribute='target')|join(',') }};{% endfor %}";
        assert_eq!(rendered(by_service).expect("renders"), "none=b:3;web <é>=a:1,[::1]:2;");
        assert_eq!(
            rendered("{{ groups[1]|tojson }}").expect("renders"),
            r#"{"targets":["b:3"],"labels":{"instance":"x"}}"#
        );
    }

    #[test]
    fn a_fault_is_one_line_with_the_file_its_line_and_the_reason() {
        for (template, place, reason) in [
            ("fine\n{% for %}\n", "t.j2:2: ", "syntax error"),
            ("{% for t in targets %}\n{{ t.labels.service }}\n{% endfor %}", "t.j2:2: ", "undefined"),
            ("\n\n{{ 1|nothing }}", "t.j2:3: ", "nothing"),
            ("{% include 'x' %}", "t.j2:1: ", "include"),
            ("{{ 1 // 0 }}", "t.j2:1: ", "1 // 0"),
        ] {
            let error = rendered(template).expect_err(template);
            assert!(error.starts_with(place) && error.contains(reason) && !error.contains('\n'), "{error}");
        }
    }
}
