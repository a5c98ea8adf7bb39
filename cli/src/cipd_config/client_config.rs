//! The message in the file: `cipd.client.config.ClientConfig`.
//!
//!     plugins {
//!       admission {
//!         cmd: "/opt/policy"
//!         args: "--strict"
//!       }
//!     }

use super::text_format::{End, Reader, TextError};

/// The admission plugin that the file configures.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct AdmissionPlugin {
    /// The program; none if this is empty.
    pub(super) cmd: String,
    pub(super) args: Vec<String>,
}

impl AdmissionPlugin {
    /// Reads the text of a file, and ignores fields that it does not know.
    pub(super) fn read(text: &[u8]) -> Result<Self, TextError> {
        let mut reader = Reader::new(text);
        let mut plugin = Self::default();
        let mut seen = false;
        while let Some(field) = reader.next_field(&["plugins"], End::OfText)? {
            reader.once(&field, &mut seen)?;
            let end = reader.message()?;
            plugin.read_plugins(&mut reader, end)?;
        }
        Ok(plugin)
    }

    fn read_plugins(&mut self, reader: &mut Reader<'_>, end: End) -> Result<(), TextError> {
        let mut seen = false;
        while let Some(field) = reader.next_field(&["admission"], end)? {
            reader.once(&field, &mut seen)?;
            let end = reader.message()?;
            self.read_admission(reader, end)?;
        }
        Ok(())
    }

    fn read_admission(&mut self, reader: &mut Reader<'_>, end: End) -> Result<(), TextError> {
        let mut seen = false;
        while let Some(field) = reader.next_field(&["cmd", "args"], end)? {
            if field.name == "args" {
                reader.strings(&field, &mut self.args)?;
            } else {
                reader.once(&field, &mut seen)?;
                self.cmd = reader.string(&field)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Vec<String>, String> {
        let AdmissionPlugin { cmd, args } =
            AdmissionPlugin::read(text.as_bytes()).map_err(|error| error.to_string())?;
        Ok([cmd].into_iter().chain(args).collect())
    }

    /// Reads the fields of `admission`, on the second line.
    fn admission(fields: &str) -> Result<Vec<String>, String> {
        read(&format!("plugins {{ admission {{\n{fields}\n}} }}"))
    }

    fn argv(argv: &[&str]) -> Result<Vec<String>, String> {
        Ok(argv.iter().map(|&arg| arg.to_owned()).collect())
    }

    #[test]
    fn the_plugin_is_read_however_it_is_written() {
        for text in [
            "plugins { admission { cmd: 'p' args: 'a' args: 'b' } }",
            "plugins{admission{cmd:'p'args:'a'args:'b'}}",
            "plugins: < admission: < cmd: 'p'; args: ['a', 'b']; >; >;",
            "plugins: { admission: { args: [ 'a' ], args: \"b\", cmd: 'p', }, },",
            "# whole\r\nplugins # to the end {\n:{\tadmission{cmd # }\n:'p' args :['a'#\n,'b']}}#",
            "plugins { admission { args: [] cmd: 'p' args: ['a'] args: ['b'] } }",
        ] {
            assert_eq!(read(text), argv(&["p", "a", "b"]), "{text}");
        }
    }

    #[test]
    fn without_a_plugin_there_is_none() {
        for text in ["", " # nothing\n", "plugins {}", "plugins { admission <> }"] {
            assert_eq!(read(text), argv(&[""]), "{text}");
        }
        assert_eq!(admission("args: 'a'"), argv(&["", "a"]));
    }

    #[test]
    fn strings_may_have_escapes_and_parts() {
        assert_eq!(
            admission(
                r#"cmd: "it's \"\x41\101\u00e9\U0001F980" ' "\n' # and
                      '' "z" args: '\303\251'"#
            ),
            argv(&["it's \"AAé🦀 \"\nz", "é"])
        );
    }

    #[test]
    fn unknown_fields_are_passed_over() {
        for field in [
            "x: 1",
            "x: -1; y: - 2, z: 0x1F y: 017 y: 1.5e-3f y: .5 y: 5. y: 1E+9F y: 0",
            "x: NAME y: true z: -inf z: nan",
            "x: 'a' \"b\" '\\xff'",
            "x 'a'",
            "x {} y < > z: {}",
            "x { cmd: 'no' y { cmd: 'no' } } z < plugins { admission { cmd: 'no' } }; >,",
            "x: [] x: [1, 2] x: ['a' 'b', 'c'] x: [{}, <y: 1>, { y: [1] }, 5] x [{}]",
            "[a.b-c/d_e]: 1 [ a # b\n . c ] { cmd: 'no' }",
            "[type.googleapis.com/some.Message] { cmd: 'no' }",
            "9: 'a' 536870911 { 1: 2 }",
            "Cmd: 'no' cmdline: 'no' _cmd: 'no'",
        ] {
            for text in [
                format!("{field} plugins {{ admission {{ cmd: 'p' }} }} {field}"),
                format!("plugins {{ {field} admission {{ cmd: 'p' }} {field} }}"),
                format!("plugins {{ admission {{ {field} cmd: 'p' {field} }} }}"),
            ] {
                assert_eq!(read(&text), argv(&["p"]), "{text}");
            }
        }
    }

    #[test]
    fn a_text_that_is_none_is_refused_where_it_breaks() {
        for (text, refused) in [
            ("plugins {", "1:10: unexpected end of file"),
            ("plugins", "1:8: unexpected end of file"),
            (
                "plugins {\n }}",
                r#"2:3: expected the name of a field, found "}""#,
            ),
            (
                "plugins { >",
                r#"1:11: expected the name of a field, found ">""#,
            ),
            ("plugins: 'p'", r#"1:10: expected a message, found "'""#),
            ("plugins: [{}]", r#"1:10: expected a message, found "[""#),
            (
                "plugins {} plugins {}",
                r#"1:12: non-repeated field "plugins" is repeated"#,
            ),
            (
                "plugins { admission {} admission {} }",
                r#"1:24: non-repeated field "admission" is repeated"#,
            ),
            ("1 { }", "1:1: cannot specify field by number: 1"),
            (";", r#"1:1: expected the name of a field, found ";""#),
            (
                "x: 1,, y: 2",
                r#"1:6: expected the name of a field, found ",""#,
            ),
            (
                "\u{feff}plugins {}",
                r#"1:1: expected the name of a field, found "\ufeff""#,
            ),
            ("0: 1", r#"1:1: expected the name of a field, found "0""#),
            (
                "536870912: 1",
                r#"1:1: expected the name of a field, found "536870912""#,
            ),
            (
                "x-y: 1",
                r#"1:1: expected the name of a field, found "x-y""#,
            ),
            (
                "[]: 1",
                r#"1:2: expected the name of an extension, found "]""#,
            ),
            (
                "[a.]: 1",
                r#"1:4: expected the name of an extension, found "]""#,
            ),
            (
                "[a b]: 1",
                r#"1:4: expected the name of an extension, found "b""#,
            ),
            ("x: [1, ]", r#"1:8: expected a value, found "]""#),
            ("x: [1 2]", r#"1:7: expected `,` or `]`, found "2""#),
            ("x: [1; 2]", r#"1:6: expected `,` or `]`, found ";""#),
            ("x: [[1]]", r#"1:5: expected a value, found "[""#),
            ("x: [{]", r#"1:6: expected the name of a field, found "]""#),
            ("x: {>", r#"1:5: expected the name of a field, found ">""#),
            ("x: - inf", r#"1:4: expected a value, found "-""#),
            ("x: 1.2.3", r#"1:4: expected a value, found "1.2.3""#),
            ("x: 08", r#"1:4: expected a value, found "08""#),
            ("x: 0x", r#"1:4: expected a value, found "0x""#),
            ("x: +1", r#"1:4: expected a value, found "+1""#),
            ("x: ;", r#"1:4: expected a value, found ";""#),
            ("é", r#"1:1: expected the name of a field, found "é""#),
        ] {
            assert_eq!(read(text), Err(refused.to_owned()), "{text}");
        }
        for (fields, refused) in [
            ("cmd 'p'", "2:1: missing field separator :"),
            ("args ['p']", "2:1: missing field separator :"),
            ("cmd: p", r#"2:6: expected a string, found "p""#),
            ("cmd: ['p']", r#"2:6: expected a string, found "[""#),
            (
                "cmd: 'p' cmd: 'q'",
                r#"2:10: non-repeated field "cmd" is repeated"#,
            ),
            ("2: 'p'", "2:1: cannot specify field by number: 2"),
            ("args: ['a', ]", r#"2:13: expected a string, found "]""#),
            ("args: ['a' {}]", r#"2:12: expected `,` or `]`, found "{""#),
            (r"cmd: 'é\8'", r#"2:8: invalid escape code "\\8" in string"#),
            (
                r"cmd: '\u12'",
                r#"2:7: invalid escape code "\\u12" in string"#,
            ),
            (r"cmd: '\xff'", "2:6: invalid UTF-8 detected"),
            ("cmd: 'a", r#"2:8: invalid character "\n" in string"#),
            ("cmd: 'a\0'", r#"2:8: invalid character "\x00" in string"#),
        ] {
            assert_eq!(admission(fields), Err(refused.to_owned()), "{fields}");
        }
        let refused = |text: &[u8]| AdmissionPlugin::read(text).map_err(|error| error.to_string());
        assert_eq!(
            refused(b"x: 'a\xff'"),
            Err("1:6: invalid UTF-8 detected".to_owned())
        );
        assert_eq!(
            refused(b"\xff"),
            Err("1:1: expected the name of a field, found \"\u{fffd}\"".to_owned())
        );
        assert_eq!(
            refused(br"x: '\"),
            Err("1:6: unexpected end of file".to_owned())
        );
        assert!(AdmissionPlugin::read(b"# \xff\nx: 1").is_ok());
    }

    #[test]
    fn any_depth_of_unknown_values_is_passed_over() {
        let depth = 1 << 20;
        let text = format!(
            "x{}{}",
            "{x".repeat(depth),
            "{}".to_owned() + &"}".repeat(depth)
        );
        assert_eq!(read(&text), argv(&[""]));
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused(text in any::<Vec<u8>>()) {
            let _ = AdmissionPlugin::read(&text);
        }

        #[test]
        fn anything_that_looks_like_a_text_is_read_or_refused(
            text in "(plugins|admission|cmd|args|x|[1-9]|'|\"|[\\\\]|[{}<>:;,#.\n-]|\\[|\\]|u|.){0,40}",
        ) {
            let _ = AdmissionPlugin::read(text.as_bytes());
        }

        #[test]
        fn any_command_line_is_read_back(cmd: String, args: Vec<String>) {
            let literal = |text: &String| {
                let bytes = text.bytes().map(|byte| format!("\\{byte:o}\"\""));
                format!("\"{}\"", bytes.collect::<String>())
            };
            let args: Vec<_> = args.into_iter().filter(|arg| !arg.is_empty()).collect();
            let list: Vec<_> = args.iter().map(literal).collect();
            let fields = format!("cmd: {} args: [{}]", literal(&cmd), list.join(", "));
            let argv = [cmd].into_iter().chain(args).collect();
            prop_assert_eq!(admission(&fields), Ok(argv));
        }
    }
}
