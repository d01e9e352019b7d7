//! The text of a record: one field, or several put together.

use std::borrow::Cow;

use remit_fault::fault;

use crate::Error;

/// A parsed `text_field`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    Field(String),
}

impl Template {
    /// Without braces, the whole is the name of one field. In a template, `{{` and `}}` stand for braces.
    pub fn parse(template: &str) -> Result<Template, Error> {
        Template::parse_as("text_field", template)
    }

    /// The same for another setting, which errors name.
    pub fn parse_as(setting: &'static str, template: &str) -> Result<Template, Error> {
        let wrong = |message| {
            fault!("{setting} `{template}`: {message}").with_hint(
                "name fields in braces, as in \"{question}\\n{answer}\"; write {{ and }} for braces",
            )
        };
        if template.is_empty() {
            return Err(wrong("it is empty"));
        }
        if !template.contains(['{', '}']) {
            return Ok(Template { parts: vec![Part::Field(template.to_owned())] });
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = template.chars().peekable();
        while let Some(c) = rest.next() {
            match c {
                '{' | '}' if rest.peek() == Some(&c) => {
                    rest.next();
                    literal.push(c);
                }
                '}' => return Err(wrong("a `}` has no `{` before it")),
                '{' => {
                    let mut field = String::new();
                    loop {
                        match rest.next() {
                            Some('}') => break,
                            Some('{') | None => return Err(wrong("a `{` has no `}` after it")),
                            Some(c) => field.push(c),
                        }
                    }
                    if field.is_empty() {
                        return Err(wrong("`{}` names no field"));
                    }
                    if !literal.is_empty() {
                        parts.push(Part::Literal(std::mem::take(&mut literal)));
                    }
                    parts.push(Part::Field(field));
                }
                c => literal.push(c),
            }
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        if !parts.iter().any(|part| matches!(part, Part::Field(_))) {
            return Err(wrong("it names no field"));
        }
        Ok(Template { parts })
    }

    /// The fields, each once, in order of appearance.
    pub fn fields(&self) -> Vec<&str> {
        let mut fields = Vec::new();
        for part in &self.parts {
            if let Part::Field(field) = part
                && !fields.contains(&field.as_str())
            {
                fields.push(field.as_str());
            }
        }
        fields
    }

    /// The field, where there is nothing but one.
    pub fn single_field(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [Part::Field(field)] => Some(field),
            _ => None,
        }
    }

    /// The text, given each field's value. A record whose fields are all empty has no text, whatever stands between.
    pub fn fill<'a, E>(&self, value: impl Fn(&str) -> Result<Cow<'a, str>, E>) -> Result<String, E> {
        let mut text = String::new();
        let mut is_empty = true;
        for part in &self.parts {
            match part {
                Part::Literal(literal) => text.push_str(literal),
                Part::Field(field) => {
                    let value = value(field)?;
                    is_empty &= value.is_empty();
                    text.push_str(&value);
                }
            }
        }
        Ok(if is_empty { String::new() } else { text })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fill(template: &str) -> String {
        let template = Template::parse(template).unwrap();
        template.fill(|field| Ok::<_, ()>(if field == "a" { "1".into() } else { "2".into() })).unwrap()
    }

    #[test]
    fn templates_put_fields_together() {
        assert_eq!(fill("a"), "1");
        assert_eq!(fill("{a}\n{b b}"), "1\n2");
        assert_eq!(fill("<{{{a}}}>{a}."), "<{1}>1.");
        assert_eq!(Template::parse("{x}{y}{x}").unwrap().fields(), ["x", "y"]);
        let single = |template| Template::parse(template).unwrap().single_field().map(str::to_owned);
        assert_eq!((single("{x}"), single("x"), single(" {x}")), (Some("x".into()), Some("x".into()), None));
    }

    #[test]
    fn wrong_templates_say_why() {
        for (template, message) in [
            ("", "text_field ``: it is empty"),
            ("{a", "text_field `{a`: a `{` has no `}` after it"),
            ("a}", "text_field `a}`: a `}` has no `{` before it"),
            ("{}", "text_field `{}`: `{}` names no field"),
            ("{{a}}", "text_field `{{a}}`: it names no field"),
        ] {
            assert_eq!(Template::parse(template).unwrap_err().to_string(), message);
        }
    }
}
