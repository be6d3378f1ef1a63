//! Reading which paths a Rust source names. A small scanner: enough of the language to tell names from comments and
//! strings, to unfold `use a::{b, c as d}`, and to leave out code that only tests see.

/// A word or mark of the language.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    /// `::`
    Path,
    Mark(char),
}

/// A path as it stands in the source, unfolded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub segments: Vec<String>,
    /// The name it is known by afterwards, if it stands in a `use`.
    pub alias: Option<String>,
    pub line: usize,
}

/// Every path of a source, in order, without those in `#[cfg(test)]` items.
pub fn paths(source: &str) -> Vec<Named> {
    let tokens = without_tests(scan(source));
    let mut reader = Reader {
        tokens: &tokens,
        at: 0,
        found: Vec::new(),
        in_use: false,
    };
    while reader.at < tokens.len() {
        reader.step();
    }
    reader.found
}

struct Reader<'a> {
    tokens: &'a [(Token, usize)],
    at: usize,
    found: Vec<Named>,
    in_use: bool,
}

impl Reader<'_> {
    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.at).map(|(token, _)| token)
    }

    fn step(&mut self) {
        match self.peek() {
            Some(Token::Word(word)) if word == "use" => {
                self.in_use = true;
                self.at += 1;
            }
            Some(Token::Word(_) | Token::Path) => self.path(&[]),
            Some(Token::Mark(';')) => {
                self.in_use = false;
                self.at += 1;
            }
            _ => self.at += 1,
        }
    }

    /// Reads one path, with the segments of the group that it stands in.
    fn path(&mut self, prefix: &[String]) {
        let line = self.tokens.get(self.at).map_or(0, |(_, line)| *line);
        let mut segments = prefix.to_vec();
        let mut joined = true;
        loop {
            match self.peek().cloned() {
                Some(Token::Path) => joined = true,
                Some(Token::Word(word)) if joined => {
                    // `use a::{self}` names `a`.
                    if word != "self" || segments.is_empty() {
                        segments.push(word);
                    }
                    joined = false;
                }
                Some(Token::Mark('{'))
                    if joined && segments.len() + prefix.len() > 0 && self.after_path() =>
                {
                    self.group(&segments);
                    return;
                }
                _ => break,
            }
            self.at += 1;
        }
        let mut alias = self.in_use.then(|| segments.last().cloned()).flatten();
        if self.in_use && self.peek() == Some(&Token::Word("as".to_owned())) {
            if let Some((Token::Word(name), _)) = self.tokens.get(self.at + 1) {
                alias = Some(name.clone());
            }
            self.at += 2;
        }
        if !segments.is_empty() {
            self.found.push(Named {
                segments,
                alias,
                line,
            });
        }
    }

    fn after_path(&self) -> bool {
        self.at > 0
            && self
                .tokens
                .get(self.at - 1)
                .is_some_and(|(token, _)| *token == Token::Path)
    }

    fn group(&mut self, prefix: &[String]) {
        self.at += 1;
        loop {
            match self.peek() {
                Some(Token::Mark('}')) => {
                    self.at += 1;
                    return;
                }
                Some(Token::Word(_) | Token::Path) => self.path(prefix),
                Some(_) => self.at += 1,
                None => return,
            }
        }
    }
}

/// Drops each item that stands under `#[cfg(test)]`.
fn without_tests(tokens: Vec<(Token, usize)>) -> Vec<(Token, usize)> {
    let mark = |c| Token::Mark(c);
    let word = |w: &str| Token::Word(w.to_owned());
    let attribute = [
        mark('#'),
        mark('['),
        word("cfg"),
        mark('('),
        word("test"),
        mark(')'),
        mark(']'),
    ];
    let mut kept = Vec::with_capacity(tokens.len());
    let mut at = 0;
    while at < tokens.len() {
        let rest = &tokens[at..];
        let under_test =
            rest.len() >= attribute.len() && rest.iter().zip(&attribute).all(|((t, _), a)| t == a);
        if under_test {
            at += attribute.len() + item_length(&rest[attribute.len()..]);
        } else {
            kept.push(tokens[at].clone());
            at += 1;
        }
    }
    kept
}

/// Tokens up to the end of an item: a `;` or a closing brace outside of all brackets.
fn item_length(tokens: &[(Token, usize)]) -> usize {
    let mut depth = 0_usize;
    for (index, (token, _)) in tokens.iter().enumerate() {
        match token {
            Token::Mark('{' | '(' | '[') => depth += 1,
            Token::Mark(close @ ('}' | ')' | ']')) => {
                depth = depth.saturating_sub(1);
                if depth == 0 && *close == '}' {
                    return index + 1;
                }
            }
            Token::Mark(';') if depth == 0 => return index + 1,
            _ => {}
        }
    }
    tokens.len()
}

/// Words and marks with their lines; comments, strings, characters and numbers are dropped.
fn scan(source: &str) -> Vec<(Token, usize)> {
    let chars: Vec<char> = source.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let mut tokens = Vec::new();
    let (mut i, mut line) = (0, 1);
    while i < chars.len() {
        let start = i;
        match at(i) {
            '/' if at(i + 1) == '/' => {
                while i < chars.len() && at(i) != '\n' {
                    i += 1;
                }
            }
            '/' if at(i + 1) == '*' => i = comment_end(&chars, i),
            '"' => i = string_end(&chars, i),
            '\'' if at(i + 1) == '\\' || at(i + 2) == '\'' => i = character_end(&chars, i),
            ':' if at(i + 1) == ':' => {
                tokens.push((Token::Path, line));
                i += 2;
            }
            c if c.is_alphabetic() || c == '_' => {
                while at(i).is_alphanumeric() || at(i) == '_' {
                    i += 1;
                }
                let word: String = chars[start..i].iter().collect();
                let raw = matches!(word.as_str(), "r" | "br" | "cr") && matches!(at(i), '"' | '#');
                match raw_end(&chars, i).filter(|_| raw) {
                    Some(end) => i = end,
                    None => tokens.push((Token::Word(word), line)),
                }
            }
            c if c.is_ascii_digit() => {
                while at(i).is_alphanumeric() || at(i) == '_' {
                    i += 1;
                }
            }
            c => {
                if !c.is_whitespace() {
                    tokens.push((Token::Mark(c), line));
                }
                i += 1;
            }
        }
        line += chars[start..i.min(chars.len())]
            .iter()
            .filter(|c| **c == '\n')
            .count();
    }
    tokens
}

/// Past a block comment, which may hold others.
fn comment_end(chars: &[char], start: usize) -> usize {
    let (mut i, mut depth) = (start, 0_usize);
    while i < chars.len() {
        match (chars[i], chars.get(i + 1)) {
            ('/', Some('*')) => (depth, i) = (depth + 1, i + 2),
            ('*', Some('/')) => {
                (depth, i) = (depth - 1, i + 2);
                if depth == 0 {
                    return i;
                }
            }
            _ => i += 1,
        }
    }
    i
}

fn string_end(chars: &[char], start: usize) -> usize {
    let mut i = start + 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

fn character_end(chars: &[char], start: usize) -> usize {
    let mut i = start + 1;
    while i < chars.len() && chars[i] != '\'' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    i + 1
}

/// Past a raw string whose `r` has been read; `None` if it is a raw name such as `r#type`.
fn raw_end(chars: &[char], start: usize) -> Option<usize> {
    let hashes = chars[start..].iter().take_while(|c| **c == '#').count();
    let mut i = start + hashes;
    if chars.get(i) != Some(&'"') {
        return None;
    }
    i += 1;
    while i < chars.len() {
        let closing =
            chars[i] == '"' && chars[i + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes;
        if closing {
            return Some(i + 1 + hashes);
        }
        i += 1;
    }
    Some(i)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(source: &str) -> Vec<String> {
        paths(source)
            .into_iter()
            .map(|named| named.segments.join("::"))
            .filter(|path| path.contains("::"))
            .collect()
    }

    #[test]
    fn unfolds_groups() {
        let found = names("use crate::{config::{self, model::Config}, http::reject::Reject as R};");
        assert_eq!(
            found,
            [
                "crate::config",
                "crate::config::model::Config",
                "crate::http::reject::Reject"
            ]
        );
        let aliases: Vec<_> = paths("use a::{b, c as d};")
            .into_iter()
            .filter_map(|named| named.alias)
            .collect();
        assert_eq!(aliases, ["b", "d"]);
    }

    #[test]
    fn finds_paths_in_code_with_their_lines() {
        let found = paths("fn f() {\n    let x = std::env::var(\"A\");\n}");
        assert!(
            found
                .iter()
                .any(|named| named.segments == ["std", "env", "var"] && named.line == 2)
        );
    }

    #[test]
    fn is_not_fooled_by_comments_strings_and_lifetimes() {
        let source = r####"
            // a::b
            /* c::d /* e::f */ g::h */
            const S: &str = "i::j \" k::l";
            const R: &str = r#"m::n " o::p"#;
            fn q<'a>(x: &'a str) -> char { '"' }
            const T: char = '\'';
            fn u() { v::w() }
        "####;
        assert_eq!(names(source), ["v::w"]);
    }

    #[test]
    fn leaves_out_what_only_tests_see() {
        let source =
            "#[cfg(test)]\nmod tests { use a::b; fn f() { c::d() } }\n#[cfg(test)] use e::f;\nuse g::h;";
        assert_eq!(names(source), ["g::h"]);
        assert_eq!(names("#[cfg(not(test))] use a::b;"), ["a::b"]);
    }

    #[test]
    fn never_fails_on_broken_text() {
        let text = "use a::{b, /* \" r#\"x ' #[cfg(test)] mod { '\\";
        for (end, _) in text.char_indices() {
            paths(&text[..end]);
        }
    }
}
