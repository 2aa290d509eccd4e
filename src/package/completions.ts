/**
 * Completions for bash, zsh and fish: the words and options of each command, the choices of options, and files where a
 * value is one. Each shell walks the words that were typed, as far as they name a command.
 */
import type { CommandDoc, OptionDoc } from './command-doc.js';

/** A command with its path as one text, `tartan lease ls`. */
interface Place {
  readonly path: string;
  readonly doc: CommandDoc;
}

function placesOf(doc: CommandDoc): readonly Place[] {
  return [{ path: doc.words.join(' '), doc }, ...doc.commands.flatMap(placesOf)];
}

const everyOption = (doc: CommandDoc): readonly OptionDoc[] => [...doc.options, ...doc.hidden];
const takesFiles = (doc: CommandDoc): boolean => doc.arguments.some(({ synopsis }) => /document|file/.test(synopsis));
const functionName = (doc: CommandDoc): string => `_${doc.words.join('_').replaceAll('-', '_')}`;

/** A text between single quotes of a shell. */
const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;

function walk(doc: CommandDoc, words: string): readonly string[] {
  const deeper = placesOf(doc).slice(1);
  if (deeper.length === 0) return [];
  return [
    `  for word in ${words}; do`,
    '    case "$place $word" in',
    `      ${deeper.map(({ path }) => quoted(path)).join('|')}) place="$place $word" ;;`,
    '    esac',
    '  done',
  ];
}

/** See "Programmable Completion" of bash(1). */
export function bashCompletion(doc: CommandDoc): string {
  const places = placesOf(doc);
  const values = places.flatMap(({ path, doc: command }) =>
    everyOption(command).flatMap(option => option.names.map(name => ({ key: `${path}:${name}`, option }))),
  );
  const choices = values.filter(({ option }) => option.choices.length > 0);
  const files = values.filter(({ option }) => option.file);
  const others = values.filter(
    ({ option }) => option.value !== undefined && !option.file && option.choices.length === 0,
  );
  const arm = (keys: readonly { key: string }[], action: string): readonly string[] =>
    keys.length === 0
      ? []
      : [`    ${keys.map(({ key }) => quoted(key)).join('|')})`, `      ${action}`, '      return ;;'];
  return [
    `${functionName(doc)}() {`,
    `  local place=${quoted(doc.words.join(' '))} word words='' current="\${COMP_WORDS[COMP_CWORD]}"`,
    ...walk(doc, '"${COMP_WORDS[@]:1:COMP_CWORD-1}"'),
    '  case "$place:${COMP_WORDS[COMP_CWORD-1]}" in',
    ...choices.flatMap(found =>
      arm([found], `mapfile -t COMPREPLY < <(compgen -W ${quoted(found.option.choices.join(' '))} -- "$current")`),
    ),
    ...arm(files, 'compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$current")'),
    ...arm(others, 'COMPREPLY=()'),
    '  esac',
    '  case "$place" in',
    ...places.map(({ path, doc: command }) => `    ${quoted(path)}) words=${quoted(wordsOf(command).join(' '))} ;;`),
    '  esac',
    '  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")',
    ...(places.some(({ doc: command }) => takesFiles(command)) ? bashFiles(places) : []),
    '}',
    `complete -F ${functionName(doc)} ${doc.words.join(' ')}`,
    '',
  ].join('\n');
}

function bashFiles(places: readonly Place[]): readonly string[] {
  const taking = places.filter(({ doc }) => takesFiles(doc)).map(({ path }) => quoted(path));
  return [
    '  case "$place" in',
    `    ${taking.join('|')}) compopt -o filenames; mapfile -t -O "\${#COMPREPLY[@]}" COMPREPLY < <(compgen -f -- "$current") ;;`,
    '  esac',
  ];
}

function wordsOf(doc: CommandDoc): readonly string[] {
  return [
    ...doc.commands.map(({ words }) => words.at(-1) ?? ''),
    ...doc.options.flatMap(({ names }) => names),
    ...doc.hidden.flatMap(({ names }) => names),
  ];
}

/** See zshcompsys(1). */
export function zshCompletion(doc: CommandDoc): string {
  const places = placesOf(doc);
  return [
    `#compdef ${doc.words.join(' ')}`,
    `${functionName(doc)}() {`,
    `  local place=${quoted(doc.words.join(' '))} word`,
    ...walk(doc, '"${(@)words[2,CURRENT-1]}"'),
    '  case "$place" in',
    ...places.flatMap(({ path, doc: command }) => [
      `    ${quoted(path)})`,
      ...(command.commands.length > 0
        ? [
            zshList(
              'commands',
              command.commands.map(child => [child.words.at(-1) ?? '', child.text]),
            ),
          ]
        : []),
      zshList(
        'options',
        everyOption(command).flatMap(option => option.names.map(name => [name, option.text])),
      ),
      ...(takesFiles(command) || everyOption(command).some(option => option.file) ? ['      _files'] : []),
      '      ;;',
    ]),
    '  esac',
    '}',
    `${functionName(doc)} "$@"`,
    '',
  ].join('\n');
}

function zshList(kind: string, entries: readonly (readonly string[])[]): string {
  const lines = entries.map(([name = '', text = '']) =>
    quoted(`${name.replaceAll(':', '\\:')}:${text.replaceAll(':', '\\:')}`),
  );
  return `      local -a ${kind}=(${lines.join(' ')}); _describe -t ${kind} ${kind} ${kind}`;
}

/** See complete(1) of fish. */
export function fishCompletion(doc: CommandDoc): string {
  const program = doc.words.join(' ');
  const at = `_${functionName(doc)}_at`;
  const places = placesOf(doc);
  return [
    `function ${at}`,
    `  set -l place ${quoted(program)}`,
    '  for word in (commandline -opc)[2..-1]',
    '    switch "$place $word"',
    ...(places.length > 1
      ? [
          `      case ${places
            .slice(1)
            .map(({ path }) => quoted(path))
            .join(' ')}`,
          '        set place "$place $word"',
        ]
      : ["      case ''"]),
    '    end',
    '  end',
    '  test "$place" = "$argv[1]"',
    'end',
    ...places.flatMap(({ path, doc: command }) => fishLines(program, `${at} ${quoted(path)}`, command)),
    '',
  ].join('\n');
}

function fishLines(program: string, condition: string, doc: CommandDoc): readonly string[] {
  const start = `complete -c ${program} -n ${quoted(condition)}`;
  return [
    ...(takesFiles(doc) ? [] : [`${start} -f`]),
    ...doc.commands.map(child => `${start} -a ${quoted(child.words.at(-1) ?? '')} -d ${quoted(child.text)}`),
    ...everyOption(doc).map(option => {
      const names = option.names
        .map(name => (name.startsWith('--') ? `-l ${name.slice(2)}` : `-s ${name.slice(1)}`))
        .join(' ');
      const value =
        option.value === undefined
          ? ''
          : option.file
            ? ' -r -F'
            : option.choices.length > 0
              ? ` -x -a ${quoted(option.choices.join(' '))}`
              : ' -x';
      return `${start} ${names}${value} -d ${quoted(option.text)}`;
    }),
  ];
}
