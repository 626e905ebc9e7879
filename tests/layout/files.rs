//! The files of `src/`, as tokens, without their tests: which other files each of them uses.
//!
//! A use is any path in the code (`use`, expressions, types, macros) that leads to an item of another file of the crate.
//! Re-exports are followed to the file that has the item: a `mod.rs` that lists names does not stand between two files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Segments of a path, from the root of the crate or as the code has them.
pub(crate) type Segments = Vec<String>;

/// One file of `src/`.
pub(crate) struct SourceFile {
    /// Relative to the crate.
    pub(crate) path: PathBuf,
    /// All tokens that are not a test's.
    pub(crate) tokens: Vec<TokenTree>,
    children: BTreeSet<String>,
    imports: Vec<Import>,
    paths: Vec<Segments>,
}

/// One name that a `use` brings.
struct Import {
    name: String,
    path: Segments,
    re_export: bool,
}

/// The crate, by module path.
pub(crate) struct Crate {
    pub(crate) files: BTreeMap<Segments, SourceFile>,
}

impl Crate {
    /// Reads `src/lib.rs` and each module that is built without tests.
    pub(crate) fn read() -> Self {
        let mut files = BTreeMap::new();
        let mut found = vec![(Segments::new(), PathBuf::from("src/lib.rs"))];
        while let Some((module, path)) = found.pop() {
            let file = SourceFile::read(&path);
            let directory = match path.file_stem().and_then(|stem| stem.to_str()) {
                Some("lib" | "mod") => path.parent().expect("a file has a directory").to_owned(),
                _ => path.with_extension(""),
            };
            for child in &file.children {
                let [flat, nested] =
                    [format!("{child}.rs"), format!("{child}/mod.rs")].map(|name| directory.join(name));
                found.push((extended(&module, child), if in_crate(&flat).exists() { flat } else { nested }));
            }
            files.insert(module, file);
        }
        Self { files }
    }

    /// The modules whose files `module` uses, each with a path that does so.
    pub(crate) fn uses(&self, module: &Segments) -> BTreeMap<Segments, String> {
        let file = &self.files[module];
        // A list of a module's own names is no use; a re-export from elsewhere is.
        let lists = |import: &Import| {
            import.re_export && self.absolute(module, &import.path, false).is_some_and(|path| path.starts_with(module))
        };
        let imports = file.imports.iter().filter(|import| !lists(import)).map(|import| &import.path);
        let mut uses = BTreeMap::new();
        for path in imports.chain(&file.paths) {
            if let Some(used) = self.absolute(module, path, true).and_then(|path| self.home(path))
                && used != *module
            {
                uses.entry(used).or_insert_with(|| path.join("::"));
            }
        }
        uses
    }

    /// The path from the root of the crate, if it leads into the crate.
    fn absolute(&self, module: &Segments, path: &[String], through_imports: bool) -> Option<Segments> {
        let file = &self.files[module];
        let (first, rest) = path.split_first()?;
        let mut base = match first.as_str() {
            "crate" => Segments::new(),
            "self" => module.clone(),
            "super" => module[..module.len() - 1].to_vec(),
            child if file.children.contains(child) => extended(module, child),
            name if through_imports => {
                let import = file.imports.iter().find(|import| import.name == name)?;
                let bound = self.absolute(module, &import.path, false)?;
                // An imported item is counted at its `use`; a module, where something of it is named.
                if !self.files.contains_key(&bound) || rest.is_empty() {
                    return None;
                }
                bound
            }
            _ => return None,
        };
        for segment in rest {
            match segment.as_str() {
                "super" => drop(base.pop()),
                "self" => {}
                _ => base.push(segment.clone()),
            }
        }
        Some(base)
    }

    /// The module whose file has the item, behind all re-exports. None for a module by itself.
    fn home(&self, mut path: Segments) -> Option<Segments> {
        loop {
            let depth = (0..=path.len()).rev().find(|&depth| self.files.contains_key(&path[..depth]))?;
            let (module, item) = (path[..depth].to_vec(), path.get(depth)?);
            let re_export = self.files[&module].imports.iter().find(|import| import.re_export && import.name == *item);
            let target = re_export.and_then(|import| self.absolute(&module, &import.path, false));
            match target {
                Some(target) => path = [target, path[depth + 1..].to_vec()].concat(),
                None => return Some(module),
            }
        }
    }
}

impl SourceFile {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(in_crate(path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let tokens: TokenStream = text.parse().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let tokens = without_tests(tokens.into_iter().collect());
        let children = tokens.windows(3).filter_map(|window| match window {
            [keyword, TokenTree::Ident(name), end] if is(keyword, "mod") && is(end, ";") => Some(name.to_string()),
            _ => None,
        });
        let mut file = Self {
            path: path.to_owned(),
            children: children.collect(),
            imports: Vec::new(),
            paths: Vec::new(),
            tokens: Vec::new(),
        };
        file.collect(&tokens);
        file.tokens = tokens;
        file
    }

    /// Finds all imports and paths among these tokens, and in their groups.
    fn collect(&mut self, tokens: &[TokenTree]) {
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            at = match token {
                TokenTree::Group(group) => {
                    self.collect(&group.stream().into_iter().collect::<Vec<_>>());
                    at + 1
                }
                TokenTree::Ident(_) if is(token, "use") => {
                    let re_export = at > 0 && (is(&tokens[at - 1], "pub") || at > 1 && is(&tokens[at - 2], "pub"));
                    let end = tokens[at..].iter().position(|token| is(token, ";")).map_or(tokens.len(), |len| at + len);
                    let mut leaves = Vec::new();
                    use_tree(&tokens[at + 1..end], &Segments::new(), &mut leaves);
                    let imports = leaves.into_iter().map(|(name, path)| Import { name, path, re_export });
                    self.imports.extend(imports);
                    end
                }
                TokenTree::Ident(_) if at < 2 || !is(&tokens[at - 1], ":") || !is(&tokens[at - 2], ":") => {
                    let (path, end) = plain_path(tokens, at);
                    if path.len() > 1 {
                        self.paths.push(path);
                    }
                    end
                }
                _ => at + 1,
            };
        }
    }
}

/// A path relative to the crate as one from anywhere.
fn in_crate(path: &Path) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn extended(module: &[String], child: &str) -> Segments {
    [module, &[child.to_owned()]].concat()
}

fn is(token: &TokenTree, text: &str) -> bool {
    !matches!(token, TokenTree::Group(_)) && token.to_string() == text
}

/// Leaves out every item behind `#[cfg(test)]`.
fn without_tests(tokens: Vec<TokenTree>) -> Vec<TokenTree> {
    let mut kept = Vec::new();
    let mut tokens = tokens.into_iter().peekable();
    while let Some(token) = tokens.next() {
        let attribute = match tokens.peek() {
            Some(TokenTree::Group(group)) if is(&token, "#") => group.stream().to_string().replace(' ', ""),
            _ => String::new(),
        };
        if attribute.starts_with("cfg(test)") || attribute.starts_with("cfg(all(test,") {
            let ends = |token: &TokenTree| match token {
                TokenTree::Group(group) => group.delimiter() == Delimiter::Brace,
                token => is(token, ";"),
            };
            tokens.by_ref().find(ends);
        } else {
            kept.push(token);
        }
    }
    kept
}

/// The names and paths that a `use` brings; `as _` and globs under the name `_` and `*`.
fn use_tree(tokens: &[TokenTree], prefix: &Segments, leaves: &mut Vec<(String, Segments)>) {
    for tree in tokens.split(|token| is(token, ",")) {
        let mut path = prefix.clone();
        let mut name = None;
        let mut tokens = tree.iter();
        while let Some(token) = tokens.next() {
            match token {
                TokenTree::Group(group) => {
                    use_tree(&group.stream().into_iter().collect::<Vec<_>>(), &path, leaves);
                    path.clear();
                }
                token if is(token, "as") => name = tokens.next().map(ToString::to_string),
                token if is(token, ":") => {}
                token if is(token, "self") && !path.is_empty() => {}
                token => path.push(token.to_string()),
            }
        }
        if let Some(last) = path.last() {
            leaves.push((name.unwrap_or_else(|| last.clone()), path));
        }
    }
}

/// The path that begins at `at`, and where the tokens go on.
fn plain_path(tokens: &[TokenTree], mut at: usize) -> (Segments, usize) {
    let mut path = vec![tokens[at].to_string()];
    at += 1;
    while let [colon, second, TokenTree::Ident(segment), ..] = &tokens[at..] {
        if !is(colon, ":") || !is(second, ":") {
            break;
        }
        path.push(segment.to_string());
        at += 3;
    }
    (path, at)
}
