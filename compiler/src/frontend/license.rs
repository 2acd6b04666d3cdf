//! The license of a checkpoint's weights, which goes where the weights go.
//!
//! Texts are what lies in the folder under the names that licenses have (`LICENSE`, `LICENCE`, `NOTICE`, `COPYING`, with
//! anything behind); what the front matter of `README.md` says is told beside them. Both are foreign: a file is
//! copied under a name of ours, and a word that is not plain is not repeated.

use super::files::{Folder, Named};
use crate::error::{Error, grouped};

/// How the names of license texts begin, in any case.
const NAMES: [&str; 4] = ["LICENSE", "LICENCE", "NOTICE", "COPYING"];

/// Largest license text, in bytes: the longest in use has a tenth of it.
const MAX_TEXT: u64 = 1 << 20;

/// Most license texts of one checkpoint.
const MAX_TEXTS: usize = 16;

/// Bytes of a README in which its front matter has to end.
const MAX_FRONT_MATTER: u64 = 64 << 10;

/// Characters of a word of the front matter.
const MAX_WORD: usize = 200;

const README: &str = "README.md";

/// Instead of a word that is not repeated.
const UNREADABLE: &str = "(unreadable)";

/// What a checkpoint says about its license.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Licenses {
    /// Values of the README's front matter by their key (`license`, `license_name`, `license_link`), in this order.
    pub declared: Vec<(&'static str, String)>,
    /// Texts, in the order of their names.
    pub texts: Vec<LicenseText>,
    /// Folders with the name of a license, which are not copied.
    pub folders: usize,
}

/// One license text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LicenseText {
    /// Its name in the checkpoint, if that is a plain one.
    pub from: Option<String>,
    /// Its name in the output.
    pub file: String,
    /// The text; what is not UTF-8 is replaced.
    pub text: String,
}

impl Licenses {
    /// Reads what is in the folder.
    ///
    /// # Errors
    /// A text that is no regular file of the folder, or larger than any license: it is not ours to drop.
    pub(super) fn read(folder: &Folder) -> Result<Licenses, Error> {
        let names = folder.names_ending("")?.into_iter().filter(|name| is_license(name));
        let (folders, names): (Vec<_>, Vec<_>) = names.partition(|name| folder.has_folder(name));
        if names.len() > MAX_TEXTS {
            let problem = format!(
                "holds {} files named like a license, at most {MAX_TEXTS} are copied: join them into one",
                grouped(names.len() as u64)
            );
            return Err(Error::input(folder.shown(), "", problem));
        }
        let mut texts = Vec::new();
        for name in names {
            // Links stay in the folder, as those of shards: else a folder from elsewhere could have our files copied.
            let Some(file) = folder.file(&name, Named::ByIndex)? else { continue };
            if file.len() > MAX_TEXT {
                let (found, most) = (grouped(file.len()), grouped(MAX_TEXT));
                let problem = format!("has {found} bytes, a license has {most} at most: rename it if it is none");
                return Err(Error::input(file.name, "", problem));
            }
            let mut bytes = vec![0; file.len() as usize];
            file.read_at(&mut bytes, 0)?;
            file.check_unchanged()?;
            let file = match texts.len() {
                0 => "LICENSE-weights".to_owned(),
                n => format!("LICENSE-weights-{}", n + 1),
            };
            let text = String::from_utf8_lossy(&bytes).into_owned();
            texts.push(LicenseText { from: is_plain(&name, "._-").then_some(name), file, text });
        }
        let declared = match folder.file(README, Named::ByUs)? {
            Some(file) => {
                let mut start = vec![0; file.len().min(MAX_FRONT_MATTER) as usize];
                file.read_at(&mut start, 0)?;
                front_matter(&String::from_utf8_lossy(&start))
            }
            None => Vec::new(),
        };
        Ok(Licenses { declared, texts, folders: folders.len() })
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.declared.is_empty() && self.texts.is_empty() && self.folders == 0
    }

    /// A few words for programs: where the text is, or the name that was declared.
    pub fn short(&self) -> Option<String> {
        let text = self.texts.first().map(|text| format!("SEE LICENSE IN {}", text.file));
        text.or_else(|| self.declared.iter().find(|(key, _)| *key == "license").map(|(_, value)| value.clone()))
    }

    /// One line for a reader, without a period.
    pub fn summary(&self) -> String {
        if self.is_empty() {
            return "none found: no LICENSE, NOTICE or COPYING beside the weights, and no license in a README.md; \
                    ask who published them before passing the output on"
                .to_owned();
        }
        let mut parts = Vec::new();
        if !self.declared.is_empty() {
            let words = self.declared.iter().map(|(key, value)| match *key {
                "license_name" => format!("named {value}"),
                "license_link" => format!("at {value}"),
                _ => value.clone(),
            });
            parts.push(format!("{}, as the checkpoint's README.md says", words.collect::<Vec<_>>().join(", ")));
        }
        parts.extend(self.texts.iter().map(|text| match &text.from {
            Some(from) => format!("{from} is copied to {}", text.file),
            None => format!("a text is copied to {}", text.file),
        }));
        if self.folders > 0 {
            parts.push("a folder of licenses is not copied: do that yourself".to_owned());
        }
        if self.texts.is_empty() && self.folders == 0 {
            parts.push(
                "the checkpoint has no license text: get it from who published them before passing the output on"
                    .to_owned(),
            );
        }
        parts.join("; ")
    }
}

fn is_license(name: &str) -> bool {
    NAMES.iter().any(|known| name.get(..known.len()).is_some_and(|head| head.eq_ignore_ascii_case(known)))
}

/// Whether a foreign word can stand anywhere: in Markdown, in JSON, on a terminal.
fn is_plain(word: &str, marks: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || marks.contains(c);
    (1..=MAX_WORD).contains(&word.len()) && word.chars().all(plain)
}

/// What the head of a model card says about licenses: one value or a list for each key.
fn front_matter(readme: &str) -> Vec<(&'static str, String)> {
    let mut lines = readme.strip_prefix('\u{feff}').unwrap_or(readme).lines();
    if lines.next().map(str::trim_end) != Some("---") {
        return Vec::new();
    }
    let head: Vec<&str> = lines.take_while(|line| line.trim_end() != "---").collect();
    let values = |key: &str| -> Vec<&str> {
        let of_key = |line: &&str| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(':'));
        let Some(at) = head.iter().position(of_key) else { return Vec::new() };
        let value = without_comment(&head[at][key.len() + 1..]);
        if value.is_empty() {
            // A list of lines.
            let items = head[at + 1..].iter().map_while(|line| line.trim_start().strip_prefix("- "));
            return items.map(without_comment).collect();
        }
        let list = value.strip_prefix('[').and_then(|value| value.strip_suffix(']'));
        list.map_or(vec![value], |list| list.split(',').collect())
    };
    let keys = ["license", "license_name", "license_link"];
    let found = keys.into_iter().map(|key| {
        let words = values(key).into_iter().map(|word| {
            let word = word.trim().trim_matches(['"', '\'']);
            // An address has more marks, and none that ends a quotation.
            match word {
                "" => None,
                word if is_plain(word, " ._-+/:()&=?#%~@,") => Some(word),
                _ => Some(UNREADABLE),
            }
        });
        (key, words.flatten().collect::<Vec<_>>().join(", "))
    });
    found.filter(|(_, value)| !value.is_empty()).collect()
}

fn without_comment(value: &str) -> &str {
    value.split(" #").next().unwrap_or(value).trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn front_matter_in_its_forms() {
        let read = |text: &str| front_matter(text).into_iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>();
        let card =
            "---\ntags:\n- x\nlicense: other  # theirs\nlicense_name: 'apple-amlr'\nlicense_link: LICENSE\n---\n";
        assert_eq!(read(card), ["license=other", "license_name=apple-amlr", "license_link=LICENSE"]);
        assert_eq!(read("---\nlicense:\n- mit\n- apache-2.0\ntags: x\n---\n"), ["license=mit, apache-2.0"]);
        assert_eq!(read("\u{feff}---\r\nlicense: [mit, \"bsd-3-clause\"]\r\n---\r\n"), ["license=mit, bsd-3-clause"]);
        // Not at the top, not a key of its own, or nothing behind it.
        for none in ["", "license: mit\n", "\n---\nlicense: mit\n---\n", "---\na:\n  license: mit\n---\n"] {
            assert_eq!(read(none), [""; 0], "{none:?}");
        }
        assert_eq!(read("---\nlicense:\nlicense_link: \"\"\n---\nlicense: mit\n"), [""; 0]);
        // What could break out of a quotation is not repeated, but that something was declared is.
        for bad in ["a`b", "<script>", "a\u{202e}b", "\u{1b}[2J", &"x".repeat(300)] {
            assert_eq!(read(&format!("---\nlicense: {bad}\n---\n")), ["license=(unreadable)"], "{bad:?}");
        }
    }

    #[test]
    fn summaries_are_sentences() {
        let text = |from: Option<&str>| LicenseText {
            from: from.map(str::to_owned),
            file: "LICENSE-weights".to_owned(),
            text: String::new(),
        };
        let declared = |pairs: &[(&'static str, &str)]| -> Vec<_> {
            pairs.iter().map(|(key, value)| (*key, (*value).to_owned())).collect()
        };
        let says = "as the checkpoint's README.md says";
        let get = "the checkpoint has no license text: get it from who published them before passing the output on";
        let folder = "a folder of licenses is not copied: do that yourself";
        let other = declared(&[("license", "other"), ("license_name", "a-b"), ("license_link", "LICENSE")]);
        let cases = [
            (declared(&[("license", "mit, apache-2.0")]), vec![], 0, format!("mit, apache-2.0, {says}; {get}")),
            (other.clone(), vec![], 1, format!("other, named a-b, at LICENSE, {says}; {folder}")),
            (
                other,
                vec![text(None)],
                0,
                format!("other, named a-b, at LICENSE, {says}; a text is copied to LICENSE-weights"),
            ),
            (vec![], vec![text(Some("COPYING"))], 1, format!("COPYING is copied to LICENSE-weights; {folder}")),
            (vec![], vec![], 1, folder.to_owned()),
        ];
        for (declared, texts, folders, expected) in cases {
            assert_eq!(Licenses { declared, texts, folders }.summary(), expected);
        }
        assert!(Licenses::default().summary().starts_with("none found: "));
    }

    #[test]
    fn names_of_licenses() {
        for name in
            ["LICENSE", "license.md", "LICENCE-model", "Notice.txt", "COPYING.LESSER", "LICENSE_MODEL", "LICENSEé"]
        {
            assert!(is_license(name), "{name}");
        }
        for name in ["README.md", "model.safetensors", "LICENS", "licenß", "MY-LICENSE"] {
            assert!(!is_license(name), "{name}");
        }
    }
}
