//! Files of class names: a name a line, in the order of the logits.

/// The names in a file's text, trimmed; empty lines are skipped.
pub fn parse(text: &str) -> Vec<String> {
    // Some editors begin a file with a byte order mark, which is no white space.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let names = text.lines().map(str::trim).filter(|name| !name.is_empty());
    names.map(Into::into).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_a_name_without_the_space_around_it() {
        assert_eq!(
            parse("\u{feff}T-shirt/top\r\n  great grey owl \n\n\t\nélan"),
            ["T-shirt/top", "great grey owl", "élan"]
        );
    }

    #[test]
    fn a_file_without_names_has_none() {
        assert_eq!(parse(""), Vec::<String>::new());
        assert_eq!(parse("\n \r\n"), Vec::<String>::new());
    }
}
