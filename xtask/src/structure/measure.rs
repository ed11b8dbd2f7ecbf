//! Numbers of a crate: what grows when nobody looks.

use quote::ToTokens as _;
use syn::{
    Field, GenericArgument, ImplItemFn, ItemFn, ItemStruct, Local, Macro, PathArguments, Stmt, TypePath,
    Visibility, spanned::Spanned as _, visit::Visit,
};

use super::modules::{Crate, is_for_tests};

/// A file or a function.
pub(super) struct Sized {
    pub(super) name: String,
    pub(super) lines: usize,
}

/// What was counted, without tests unless they are named.
#[derive(Default)]
pub(super) struct Measures {
    pub(super) lines: usize,
    pub(super) test_lines: usize,
    pub(super) files: Vec<Sized>,
    pub(super) functions: Vec<Sized>,
    /// Fields that other files of the crate may write.
    pub(super) open_fields: usize,
    /// `Result<_, String>`.
    pub(super) text_errors: usize,
    /// `span!` of any level, and functions with `#[instrument]`.
    pub(super) spans: usize,
    /// `debug_assert!` and its siblings.
    pub(super) assertions: usize,
    /// `let … else { return }` without a value.
    pub(super) silent_returns: usize,
}

impl Measures {
    /// Sums up.
    pub(super) fn add(&mut self, other: &Self) {
        let copy = |sized: &Sized| Sized { name: sized.name.clone(), lines: sized.lines };
        self.lines += other.lines;
        self.test_lines += other.test_lines;
        self.files.extend(other.files.iter().map(copy));
        self.functions.extend(other.functions.iter().map(copy));
        self.open_fields += other.open_fields;
        self.text_errors += other.text_errors;
        self.spans += other.spans;
        self.assertions += other.assertions;
        self.silent_returns += other.silent_returns;
    }
}

/// Counts.
pub(super) fn measure(found: &Crate) -> Measures {
    let mut measures = Measures { test_lines: found.test_lines, ..Measures::default() };
    for module in found.modules.values() {
        let total = module.text.lines().count();
        let tests = lines_of_tests(&module.text);
        measures.lines += total - tests;
        measures.test_lines += tests;
        measures.files.push(Sized { name: module.file.clone(), lines: total - tests });
        let mut count = Count { file: &module.file, into: &mut measures };
        module.items.iter().for_each(|item| count.visit_item(item));
    }
    measures
}

/// Tests stand at the end of a file, below their attribute.
fn lines_of_tests(text: &str) -> usize {
    let lines: Vec<&str> = text.lines().collect();
    let begins = lines
        .windows(2)
        .position(|pair| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{'));
    begins.map_or(0, |index| lines.len() - index)
}

struct Count<'a> {
    file: &'a str,
    into: &'a mut Measures,
}

impl Count<'_> {
    fn function(&mut self, signature: &syn::Signature, block: &syn::Block) {
        let lines = 1 + block.span().end().line - signature.span().start().line;
        self.into.functions.push(Sized { name: format!("{}: {}", self.file, signature.ident), lines });
    }

    fn instrumented(&mut self, attributes: &[syn::Attribute]) {
        let is = |attribute: &&syn::Attribute| {
            attribute.path().segments.last().is_some_and(|segment| segment.ident == "instrument")
        };
        self.into.spans += attributes.iter().filter(is).count();
    }
}

impl<'ast> Visit<'ast> for Count<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if !is_for_tests(item) {
            syn::visit::visit_item(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.function(&item.sig, &item.block);
        self.instrumented(&item.attrs);
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        self.function(&item.sig, &item.block);
        self.instrumented(&item.attrs);
        syn::visit::visit_impl_item_fn(self, item);
    }

    fn visit_item_struct(&mut self, item: &'ast ItemStruct) {
        // `pub` says no more than the struct does.
        if matches!(item.vis, Visibility::Restricted(_)) {
            self.into.open_fields +=
                item.fields.iter().filter(|field| matches!(field.vis, Visibility::Public(_))).count();
        }
        syn::visit::visit_item_struct(self, item);
    }

    fn visit_field(&mut self, field: &'ast Field) {
        self.into.open_fields += usize::from(matches!(field.vis, Visibility::Restricted(_)));
        syn::visit::visit_field(self, field);
    }

    fn visit_type_path(&mut self, path: &'ast TypePath) {
        if let Some(last) = path.path.segments.last()
            && last.ident == "Result"
            && let PathArguments::AngleBracketed(arguments) = &last.arguments
            && let Some(GenericArgument::Type(error)) = arguments.args.iter().nth(1)
        {
            self.into.text_errors += usize::from(error.to_token_stream().to_string() == "String");
        }
        syn::visit::visit_type_path(self, path);
    }

    fn visit_macro(&mut self, item: &'ast Macro) {
        let name = item.path.segments.last().map(|segment| segment.ident.to_string()).unwrap_or_default();
        self.into.assertions += usize::from(name.starts_with("debug_assert"));
        self.into.spans += usize::from(name == "span" || name.ends_with("_span"));
        syn::visit::visit_macro(self, item);
    }

    fn visit_local(&mut self, local: &'ast Local) {
        if let Some((_, otherwise)) = local.init.as_ref().and_then(|init| init.diverge.as_ref())
            && let syn::Expr::Block(block) = otherwise.as_ref()
            && let [Stmt::Expr(syn::Expr::Return(returned), _)] = block.block.stmts.as_slice()
        {
            self.into.silent_returns += usize::from(returned.expr.is_none());
        }
        syn::visit::visit_local(self, local);
    }
}
