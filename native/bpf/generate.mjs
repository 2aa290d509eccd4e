/**
 * Compiles kernel-path.bpf.c with Debian's clang 14 and writes its bytecode to kernel-programs.h, from where the addon
 * loads it: users need no compiler. Another version of clang makes other bytecode, so no other is taken.
 * Usage: node native/bpf/generate.mjs [--check]
 * With --check it writes nothing, and fails unless kernel-programs.h is what it would write.
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const version = '14.0.6';
const here = fileURLToPath(new URL('.', import.meta.url));
const output = join(here, 'kernel-programs.h');
const unpacked = fileURLToPath(new URL('../../.cache/clang', import.meta.url));
/** Instructions are words of eight bytes. */
const wordBytes = 8;

const sources = [
  'bpf/kernel-path.bpf.c',
  'bpf/kernel-helpers.h',
  'bpf/kernel-probe.h',
  'shared/kernel-maps.h',
  'shared/counters.h',
];

/** What set-up unpacked is preferred to what is installed. */
function findCompiler() {
  const multiarch = execFileSync('gcc', ['-print-multiarch'], { encoding: 'utf8' }).trim();
  const isUnpacked = existsSync(join(unpacked, 'usr/bin/clang-14'));
  const root = isUnpacked ? unpacked : '/';
  const libraries = [join(root, 'usr/lib', multiarch), join(root, 'usr/lib/llvm-14/lib')].join(':');
  return {
    command: isUnpacked ? join(root, 'usr/bin/clang-14') : 'clang-14',
    env: isUnpacked ? { ...process.env, LD_LIBRARY_PATH: libraries } : process.env,
    include: ['usr/include', `usr/include/${multiarch}`].map(path => join('/', path)),
  };
}

function compile(object) {
  const { command, env, include } = findCompiler();
  let said;
  try {
    said = execFileSync(command, ['--version'], { encoding: 'utf8', env });
  } catch (error) {
    throw new Error(
      `${command} does not run (${error.code ?? error.status}): npm run generate-bpf needs clang ${version}; ` +
        'test/support/setup.sh brings it where Debian 12 packages can be had',
      { cause: error },
    );
  }
  if (!said.includes(`clang version ${version}`))
    throw new Error(`${command} is "${said.split('\n')[0]}", expected clang ${version}: install Debian 12's clang-14`);
  const options = ['-target', 'bpfel', '-mcpu=v2', '-O2', '-std=c11', '-Wall', '-Wextra', '-Werror'];
  const headers = ['-ffreestanding', '-nostdlibinc', `-I${join(here, '../shared')}`];
  const after = include.flatMap(path => ['-idirafter', path]);
  const files = ['-c', join(here, 'kernel-path.bpf.c'), '-o', object];
  const { status } = spawnSync(command, [...options, ...headers, ...after, ...files], { env, stdio: 'inherit' });
  if (status !== 0) throw new Error('kernel-path.bpf.c does not compile, see above');
}

/** elf(5), 64 bits, little-endian. */
function readSections(elf) {
  if (elf.readUInt32BE(0) !== 0x7f454c46) throw new Error('the compiler made no ELF file');
  const [table, size, count, names] = [
    elf.readBigUInt64LE(40),
    elf.readUInt16LE(58),
    elf.readUInt16LE(60),
    elf.readUInt16LE(62),
  ];
  const sections = Array.from({ length: count }, (_, i) => {
    const at = Number(table) + i * size;
    const offset = Number(elf.readBigUInt64LE(at + 24));
    return {
      name: elf.readUInt32LE(at),
      link: elf.readUInt32LE(at + 40),
      about: elf.readUInt32LE(at + 44),
      type: elf.readUInt32LE(at + 4),
      bytes: elf.subarray(offset, offset + Number(elf.readBigUInt64LE(at + 32))),
    };
  });
  return sections.map(section => ({ ...section, name: textAt(sections[names].bytes, section.name) }));
}

function textAt(bytes, at) {
  return bytes.toString('latin1', at, bytes.indexOf(0, at));
}

const [relocationType, symbolBytes, relocationBytes, mapLoad] = [9, 24, 16, 1];

function readRelocations(sections, index) {
  return sections
    .filter(({ type, about }) => type === relocationType && about === index)
    .flatMap(({ bytes, link }) => {
      const symbols = sections[link];
      return Array.from({ length: bytes.length / relocationBytes }, (_, i) => {
        const at = i * relocationBytes;
        const symbol = bytes.readUInt32LE(at + 12) * symbolBytes;
        const name = textAt(sections[symbols.link].bytes, symbols.bytes.readUInt32LE(symbol));
        if (bytes.readUInt32LE(at + 8) !== mapLoad) throw new Error(`a relocation to ${name} is not the load of a map`);
        return { at: Number(bytes.readBigUInt64LE(at)) / wordBytes, map: name.replace(/_map$/, '') };
      });
    });
}

function formatProgram({ name, bytes, relocations }) {
  const words = Array.from(
    { length: bytes.length / wordBytes },
    (_, i) => `0x${bytes.readBigUInt64LE(i * wordBytes).toString(16)},`,
  );
  const lines = [];
  for (let at = 0; at < words.length; at += 12) lines.push(`\t${words.slice(at, at + 12).join(' ')}`);
  const places = relocations.map(({ at, map }) => `{ ${at}, kernel_map_${map} },`);
  const rows = [];
  for (let at = 0; at < places.length; at += 4) rows.push(`\t${places.slice(at, at + 4).join(' ')}`);
  return `static const uint64_t ${name}_code[] = {\n${lines.join('\n')}\n};
static const struct kernel_relocation ${name}_relocations[] = {\n${rows.join('\n')}\n};`;
}

function format(programs) {
  const digest = source =>
    createHash('sha256')
      .update(readFileSync(join(here, '..', source)))
      .digest('hex');
  const digests = sources.map(source => ` * ${digest(source)} ${source}`);
  const rows = programs.map(
    ({ name, bytes, relocations }) =>
      `\t{ "${name}", ${name}_code, ${bytes.length / wordBytes}, ${name}_relocations, ${relocations.length} },`,
  );
  return `/*
 * Made by generate.mjs from kernel-path.bpf.c; do not edit. The SHA-256 of each source:
${digests.join('\n')}
 */
#include "../shared/kernel-maps.h"
#include <stddef.h>

/* The instruction loads the address of a map. */
struct kernel_relocation {
	uint32_t at;
	enum kernel_map map;
};

struct kernel_program {
	const char *name;
	const uint64_t *code; /* struct bpf_insn */
	size_t count;
	const struct kernel_relocation *relocations;
	size_t relocation_count;
};

${programs.map(formatProgram).join('\n')}

enum kernel_program_number { ${programs.map(({ name }) => `kernel_program_${name}`).join(', ')} };
static const struct kernel_program kernel_programs[] = {\n${rows.join('\n')}\n};
`;
}

function generate() {
  const scratch = mkdtempSync(join(tmpdir(), 'tartan-bpf-'));
  try {
    compile(join(scratch, 'object'));
    const sections = readSections(readFileSync(join(scratch, 'object')));
    const stray = sections.find(({ name, bytes }) => /^\.(text|rodata|data|bss)/.test(name) && bytes.length > 0);
    if (stray)
      throw new Error(`the compiler made a section ${stray.name}, which nobody loads: inline the function or constant`);
    const isProgram = ({ name, type }) => name.startsWith('tc/') && type === 1;
    const programs = sections.flatMap((section, index) =>
      isProgram(section)
        ? [{ name: section.name.slice(3), bytes: section.bytes, relocations: readRelocations(sections, index) }]
        : [],
    );
    return format(programs);
  } finally {
    rmSync(scratch, { recursive: true });
  }
}

try {
  const text = generate();
  if (process.argv[2] !== '--check') writeFileSync(output, text);
  else if (readFileSync(output, 'utf8') !== text)
    throw new Error('kernel-programs.h is not what clang makes of its sources: npm run generate-bpf, and commit it');
} catch (error) {
  process.stderr.write(`generate-bpf: ${error.message}\n`);
  process.exitCode = 1;
}
