/**
 * Turns packets.json into C (vectors.h) and into seeds for the fuzz targets (corpus/<target>/<id>).
 * Usage: node vectors.mjs PACKETS.JSON BUILD-DIRECTORY
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const [source, build] = process.argv.slice(2);
if (source === undefined || build === undefined) throw new Error('usage: vectors.mjs PACKETS.JSON BUILD-DIRECTORY');

const directions = { rx: 'VECTOR_RX', tx: 'VECTOR_TX', vnet: 'VECTOR_VNET' };

function checkVector(vector) {
  const bytes = Buffer.from(vector.hex, 'hex');
  if (bytes.length !== vector.len) throw new Error(`${vector.id}: ${bytes.length} bytes, "len" says ${vector.len}`);
  if (!(vector.dir in directions)) throw new Error(`${vector.id}: direction ${vector.dir}`);
  if (!/^[rt]x_[a-z_]+$/.test(vector.counter)) throw new Error(`${vector.id}: counter ${vector.counter}`);
  return bytes;
}

function formatBytes(bytes) {
  const lines = [];
  for (let at = 0; at < bytes.length; at += 32) lines.push('\t' + [...bytes.subarray(at, at + 32)].join(', ') + ',');
  return lines.join('\n');
}

function formatOuter(text) {
  const match = /^(\d+)\.(\d+)\.(\d+)\.(\d+):(\d+)$/.exec(text);
  if (match === null) throw new Error(`outer_from ${text}`);
  const [a, b, c, d, port] = match.slice(1).map(Number);
  return `.source = ${((a << 24) | (b << 16) | (c << 8) | d) >>> 0}u, .port = ${port}`;
}

function formatVector(vector, bytes) {
  // C has no empty array, so a packet of no bytes points at a byte that is not its own.
  const array = `static const uint8_t bytes_${vector.id}[] = {\n${bytes.length === 0 ? '\t0,' : formatBytes(bytes)}\n};`;
  const name = JSON.stringify(`${vector.id} ${vector.name}`);
  const row = `\t{ .name = ${name}, .direction = ${directions[vector.dir]}, ${formatOuter(vector.outer_from)},
\t  .bytes = bytes_${vector.id}, .length = ${bytes.length}, .counter = ${vector.counter} },`;
  return { array, row };
}

function writeSeed(target, name, ...parts) {
  writeFileSync(join(build, 'corpus', target, name), Buffer.concat(parts.map(part => Buffer.from(part))));
}

/** The bytes before the packet are explained in the target that reads them. */
function writeVectorSeeds(vector, bytes) {
  if (vector.dir === 'vnet') return writeSeed('gso', vector.id, bytes);
  writeSeed('forward', vector.id, [vector.dir === 'tx' ? 1 : 0], bytes);
  writeSeed('icmp', vector.id, [0, 4, 5, 192, vector.dir === 'tx' ? 0 : 140, 0], bytes);
}

const vectors = JSON.parse(readFileSync(source, 'utf8'));
for (const target of ['forward', 'fragment', 'icmp', 'gso', 'route-slot', 'route-table', 'tso-packet', 'coalesce'])
  mkdirSync(join(build, 'corpus', target), { recursive: true });
const texts = vectors.map(vector => {
  const bytes = checkVector(vector);
  writeVectorSeeds(vector, bytes);
  return formatVector(vector, bytes);
});
for (let seed = 1; seed <= 8; seed++) {
  const noise = Array.from({ length: 64 * seed }, (_, i) => (i * 37 + seed * 101) & 255);
  writeSeed('route-table', `seed-${seed}`, noise);
  writeSeed('route-slot', `noise-${seed}`, noise);
  /** A sound table: 10.<seed>.<i>.0/24 in order, endpoints that repeat, one port. */
  const route = i => [32 + (seed & 3), i, 0, 24, (i % seed) + 1, 0, 32, 93];
  writeSeed('route-slot', `seed-${seed}`, Array.from({ length: 16 * seed }, (_, i) => route(i)).flat());
}
/** Streams for the coalescer, six bytes a packet (see the target). Seed n changes every n-th; the last are small. */
for (let seed = 1; seed <= 12; seed++) {
  const payload = i => (seed > 8 ? seed : i % 9 === 8 ? seed : 0);
  const record = i => [i % (2 * seed), i % (5 * seed) === 4 ? 195 + seed * 4 : 0, i % 60, i & 255, payload(i), 40];
  writeSeed('coalesce', `seed-${seed}`, Array.from({ length: 100 }, (_, i) => record(i)).flat());
}

/** A packet that waits, and another between the same hosts that ends with its IP header. */
writeSeed('coalesce', 'stump', [4, 0, 0, 0, 0, 0], [4, 207, 3, 20, 40, 40]);

/** TSO packets: a virtio header of TCP or UDP segmentation and the packet, sequence number and payload counting up. */
for (let seed = 0; seed < 8; seed++) {
  const udp = seed % 2 === 1;
  const vnet = [1, seed === 6 ? 0 : udp ? 5 : 1, 0, 0, 100 + seed, seed >> 2, 20, 0, udp ? 6 : 16, 0];
  const ip = [0x45, 0, 3, 0, 0, seed, 0x40, 0, 64, udp ? 17 : 6, 0, 0, 10, 5, 1, 9, 10, 5, 2, 9];
  const rest = Array.from({ length: 748 }, (_, i) => (i === 12 ? (5 + seed) << 4 : i === 13 ? 0x99 : i & 255));
  writeSeed('tso-packet', `seed-${seed}`, vnet, ip, rest);
  writeSeed('gso', `seed-${seed}`, vnet, ip, rest, rest);
}

/** Packets with and without options, fragments too, and the lengths to which they are cut. */
for (let seed = 0; seed < 8; seed++) {
  const words = 5 + (seed % 4) * 2;
  const total = 200 * (seed + 1);
  const ip = [0x40 + words, 0, total >> 8, total & 255, 0, seed, seed % 3 === 2 ? 0x20 : 0, seed, 64, 17, 0, 0];
  const options = Array.from({ length: 4 * words - 20 }, (_, i) => [7, 3, 4, 1, 148, 4, 0, 0][i % 8]);
  const rest = Array.from({ length: total - 4 * words }, (_, i) => i & 255);
  writeSeed('fragment', `seed-${seed}`, [0, 68 + 20 * seed], ip, [10, 5, 1, 9, 10, 5, 2, 9], options, rest);
}

writeFileSync(
  join(build, 'vectors.h'),
  `/* Made by vectors.mjs from packets.json. */
#include "counters.h"
#include <stddef.h>
#include <stdint.h>

enum vector_direction { VECTOR_RX, VECTOR_TX, VECTOR_VNET };

struct vector {
\tconst char *name;
\tenum vector_direction direction;
\tuint32_t source;
\tuint16_t port;
\tconst uint8_t *bytes;
\tsize_t length;
\tenum counter counter;
};

${texts.map(text => text.array).join('\n')}

static const struct vector vectors[] = {
${texts.map(text => text.row).join('\n')}
};
`,
);
