// Built with AssemblyScript and its WASI shim: one line on standard output, then exit code 7.

// Some work that brings in the collector, sorting and formatting of floats.
const words = "the quick brown fox jumps over the lazy dog".split(" ");
words.sort();
let letters = 0;
for (let i = 0; i < words.length; i++) letters += words[i].length;
const pi = Math.round((22.0 / 7.0) * 1000.0) / 1000.0;
console.log(`hello from assemblyscript: ${letters} letters, first ${words[0]}, ${pi}`);
process.exit(7);
