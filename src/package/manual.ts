/** Man pages, in the macros of man(7). */
import type { CommandDoc, OptionDoc } from './command-doc.js';

export interface Manual {
  readonly doc: CommandDoc;
  readonly section: 1 | 8;
  readonly version: string;
  /** Seconds since 1970. */
  readonly epoch: number;
  readonly notes: readonly { readonly title: string; readonly text: string }[];
}

export function formatManual({ doc, section, version, epoch, notes }: Manual): string {
  const name = doc.words.join(' ');
  const date = new Date(epoch * 1000).toISOString().slice(0, 10);
  const lines = [
    `.TH ${name.toUpperCase()} ${section} "${date}" "tartan ${version}" "tartan"`,
    '.SH NAME',
    `${escape(name)} \\- ${escape(lowerFirst(doc.text))}`,
    '.SH SYNOPSIS',
    ...synopsis(doc),
    ...(doc.commands.length > 0 ? ['.SH COMMANDS', ...doc.commands.flatMap(command => commandLines(command))] : []),
    '.SH OPTIONS',
    ...doc.options.flatMap(optionLines),
    ...notes.flatMap(({ title, text }) => [`.SH ${title}`, ...paragraphs(text)]),
    ...(doc.commands.length > 0 ? [] : exampleLines(doc)),
  ];
  return `${lines.join('\n')}\n`;
}

function synopsis(doc: CommandDoc): readonly string[] {
  const values = doc.arguments.map(({ synopsis: text }) => escape(text)).join(' ');
  const command = doc.commands.length > 0 ? '\\fICOMMAND\\fR ' : '';
  return [`.B ${escape(doc.words.join(' '))}`, `${command}[\\fIOPTION\\fR]... ${values}`.trim()];
}

function commandLines(doc: CommandDoc): readonly string[] {
  if (doc.commands.length > 0) return doc.commands.flatMap(commandLines);
  return [
    `.SS ${escape(doc.words.slice(1).join(' '))} ${doc.arguments.map(({ synopsis: text }) => escape(text)).join(' ')}`.trim(),
    escape(doc.text),
    ...doc.arguments
      .filter(({ text }) => text !== '')
      .flatMap(({ synopsis: name, text }) => ['.TP', `.I ${escape(name)}`, escape(text)]),
    ...doc.options.filter(option => !option.names.includes('--help')).flatMap(optionLines),
    ...(doc.hidden.length > 0 ? ['.PP', 'The options for etcd are accepted too.'] : []),
    ...exampleLines(doc),
  ];
}

function exampleLines(doc: CommandDoc): readonly string[] {
  if (doc.examples.length === 0) return [];
  return [
    '.PP',
    doc.examples.length === 1 ? 'Example:' : 'Examples:',
    '.PP',
    '.EX',
    ...doc.examples.map(line => `  ${escape(line)}`),
    '.EE',
  ];
}

function optionLines(option: OptionDoc): readonly string[] {
  const names = option.names.map(name => `\\fB${escape(name)}\\fR`).join(', ');
  const choices = option.choices.length > 0 ? ` (${option.choices.join(', ')})` : '';
  return [
    '.TP',
    `${names}${option.value === undefined ? '' : ` \\fI${escape(option.value)}\\fR`}`,
    escape(`${option.text}${choices}`),
  ];
}

function paragraphs(text: string): readonly string[] {
  return text
    .trim()
    .split(/\n\n+/)
    .flatMap(part => ['.PP', ...part.split('\n').map(line => escape(line.trim()))]);
}

/** A backslash, a dash and a quote mean something to man(7), and so does a dot or a quote that a line begins with. */
function escape(text: string): string {
  const plain = text
    .replaceAll('\\', '\\e')
    .replaceAll('-', '\\-')
    .replaceAll("'", '\\(aq')
    .replaceAll('~', '\\(ti')
    .replaceAll('^', '\\(ha');
  return plain.startsWith('.') ? `\\&${plain}` : plain;
}

function lowerFirst(text: string): string {
  return `${text.slice(0, 1).toLowerCase()}${text.slice(1)}`;
}
