//! Built for wasm32-wasi: one line on standard output, then exit code 7.

const std = @import("std");

fn lessThan(_: void, a: []const u8, b: []const u8) bool {
    return std.mem.order(u8, a, b) == .lt;
}

pub fn main(init: std.process.Init) !void {
    // Some work that brings in sorting, copies and formatting of floats.
    var words = [_][]const u8{ "the", "quick", "brown", "fox", "jumps", "over", "the", "lazy", "dog" };
    std.mem.sort([]const u8, &words, {}, lessThan);
    var letters: usize = 0;
    for (words) |word| letters += word.len;
    var pi: f64 = 22.0;
    std.mem.doNotOptimizeAway(&pi);
    var buffer: [128]u8 = undefined;
    var stdout = std.Io.File.stdout().writer(init.io, &buffer);
    try stdout.interface.print("hello from zig: {d} letters, first {s}, {d:.3}\n", .{ letters, words[0], pi / 7.0 });
    try stdout.interface.flush();
    std.process.exit(7);
}
