//! Measured figures beside the model's.

/// One figure.
pub(crate) struct Row {
    pub(crate) what: &'static str,
    pub(crate) measured: f64,
    pub(crate) model: f64,
}

/// The figures of one group.
pub(crate) struct Report {
    pub(crate) scrapers: usize,
    pub(crate) rows: Vec<Row>,
}

impl Report {
    pub(crate) fn row(&mut self, what: &'static str, measured: f64, model: f64) {
        self.rows.push(Row { what, measured, model });
    }

    pub(crate) fn print(&self) {
        println!("| {} scrapers | measured | model | ratio |\n|---|---|---|---|", self.scrapers);
        for Row { what, measured, model } in &self.rows {
            println!("| {what} | {} | {} | {:.2} |", figure(*measured), figure(*model), measured / model);
        }
        println!();
    }
}

/// The ratios of several groups side by side.
pub(crate) fn compare(reports: &[Report]) {
    // A group of one or two forwards nothing.
    let Some(longest) = reports.iter().max_by_key(|report| report.rows.len()) else { return };
    let heads: String = reports.iter().map(|report| format!(" {} |", report.scrapers)).collect();
    println!("| measured / model, scrapers: |{heads}\n|---|{}", "---|".repeat(reports.len()));
    for Row { what, .. } in &longest.rows {
        let ratios = reports.iter().map(|report| {
            let row = report.rows.iter().find(|row| row.what == *what);
            row.map_or(" |".to_owned(), |row| format!(" {:.2} |", row.measured / row.model))
        });
        println!("| {what} |{}", ratios.collect::<String>());
    }
}

fn figure(value: f64) -> String {
    let digits = if value.abs() < 10.0 { 3 } else { 0 };
    format!("{value:.digits$}")
}
