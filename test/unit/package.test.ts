/** What packages are made of, from the tables of the programs: man pages, completions, the list of programs. */
import { execFileSync } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { bashCompletion, fishCompletion, zshCompletion } from '../../src/package/completions.js';
import type { CommandDoc } from '../../src/package/command-doc.js';
import { formatManual } from '../../src/package/manual.js';
import { daemonNotes, toolNotes } from '../../src/package/manual-notes.js';
import { nodePackage } from '../../src/package/node-runtime.js';
import { platforms } from '../../src/package/platforms.js';
import { configFolders, programs } from '../../src/package/program-tree.js';
import { flags } from '../../src/cli/flags.js';
import { root } from '../support/tools.js';

const everyCommand = (doc: CommandDoc): readonly CommandDoc[] => [doc, ...doc.commands.flatMap(everyCommand)];
const docs = programs.map(({ name, section, doc }) => ({ name, section, doc: doc() }));

test('the packages hold the programs that package.json names', () => {
  const { bin } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { bin: object };
  expect(programs.map(({ name }) => name).sort()).toEqual(Object.keys(bin).sort());
});

test('the packages hold every folder of config/, and its files name this version', () => {
  const apart = ['package', 'systemd', 'sysusers.d'];
  const folders = readdirSync(join(root, 'config'), { withFileTypes: true }).filter(entry => entry.isDirectory());
  for (const { name } of folders) if (!apart.includes(name)) expect(configFolders).toHaveProperty([name]);
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { version: string };
  const compose = readFileSync(join(root, 'config/compose/compose.yaml'), 'utf8');
  expect(compose).toContain(`image: tartan:${version}\n`);
  for (const file of ['cloud-config.yaml', 'ignition.json']) {
    const text = readFileSync(join(root, 'config/cloud', file), 'utf8');
    for (const [, found] of text.matchAll(/tartan[-_](\d+\.\d+\.\d+)/g)) expect(found).toBe(version);
  }
  // The one list is of the unit, which says what each is for.
  const unit = readFileSync(join(root, 'config/systemd/tartand.service'), 'utf8');
  const wanted = /^CapabilityBoundingSet=(.*)$/m.exec(unit)?.[1]?.replaceAll('CAP_', '').split(' ');
  expect(/cap_add: \[(.*)\]/.exec(compose)?.[1]?.split(', ')).toEqual(wanted);
});

test('the Node.js of both processors is of one version, with a hash', () => {
  const found = platforms.map(platform => nodePackage(root, platform));
  expect(new Set(found.map(({ version }) => version)).size).toBe(1);
  for (const { integrity } of found) expect(integrity).toMatch(/^sha512-[A-Za-z0-9+/]{86}==$/);
});

describe.each(docs)('man page of $name', ({ name, section, doc }) => {
  const notes = name === 'tartand' ? daemonNotes() : toolNotes();
  const page = formatManual({ doc, section, version: '1.2.3', epoch: 1_700_000_000, notes });

  test('man(1) reads it without a complaint', () => {
    const complaints = execFileSync('sh', ['-c', 'groff -man -Tascii -ww -z 2>&1 || true'], {
      input: page,
      encoding: 'utf8',
    });
    expect(complaints).toBe('');
    expect(page).toMatch(new RegExp(`^\\.TH ${name.toUpperCase()} ${section} "2023-11-14"`));
  });

  test('it names each command and each option', () => {
    const plain = page.replaceAll('\\-', '-');
    for (const command of everyCommand(doc)) {
      if (command.words.length > 1 && command.commands.length === 0) {
        expect(plain).toContain(`.SS ${command.words.slice(1).join(' ')}`);
      }
      for (const option of command.options) for (const word of option.names) expect(plain).toContain(`\\fB${word}\\fR`);
    }
  });
});

test('the man page of tartand holds every flag that works', () => {
  const doc = programs.find(({ name }) => name === 'tartand')?.doc();
  const known = new Set(doc?.options.flatMap(({ names }) => names));
  expect(flags.filter(flag => flag.disposition.kind === 'works' && !known.has(`--${flag.name}`))).toEqual([]);
});

/** @returns the words that bash offers after these */
function offered(doc: CommandDoc, words: readonly string[]): readonly string[] {
  const name = `_${doc.words.join('_').replaceAll('-', '_')}`;
  const script = `${bashCompletion(doc)}
    compopt() { :; }
    COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)); ${name}; printf '%s\\n' "\${COMPREPLY[@]}"`;
  return execFileSync('bash', ['-uc', script, 'bash', ...words], { encoding: 'utf8' })
    .trim()
    .split('\n');
}

describe('completions', () => {
  const tartan = docs.find(({ name }) => name === 'tartan')?.doc as CommandDoc;

  test('bash offers the commands, those below them, options and choices', () => {
    expect(offered(tartan, ['tartan', 'st'])).toEqual(['status']);
    expect(offered(tartan, ['tartan', 'lease', ''])).toEqual(expect.arrayContaining(['ls', 'reserve', 'release']));
    expect(offered(tartan, ['tartan', 'events', '--level', ''])).toEqual(['debug', 'info', 'warn', 'error'].slice(1));
    expect(offered(tartan, ['tartan', 'leases', '--etcd-c'])).toEqual(['--etcd-cafile', '--etcd-certfile']);
    expect(offered(tartan, ['tartan', 'leases', '--etcd-endpoints', ''])).toEqual(['']);
  });

  test.each(docs)('bash offers every command and option of $name', ({ doc }) => {
    for (const command of everyCommand(doc)) {
      const found = offered(doc, [...command.words, '']);
      expect(found).toEqual(expect.arrayContaining(command.commands.map(({ words }) => words.at(-1))));
      expect(found).toEqual(expect.arrayContaining(command.options.flatMap(({ names }) => [...names])));
    }
  });

  test.each(docs)('zsh and fish get each command and option of $name', ({ doc }) => {
    const [zsh, fish] = [zshCompletion(doc), fishCompletion(doc)];
    for (const command of everyCommand(doc)) {
      for (const child of command.commands) {
        expect(zsh).toContain(`'${child.words.at(-1)}:`);
        expect(fish).toContain(` -a '${child.words.at(-1)}' `);
      }
      for (const name of command.options.flatMap(({ names }) => names)) {
        expect(zsh).toContain(`'${name}:`);
        expect(fish).toContain(name.startsWith('--') ? ` -l ${name.slice(2)} ` : ` -s ${name.slice(1)} `);
      }
    }
  });
});
