/** What the man pages and the completions tell: the tables that `--help` is made from, in one form for both programs. */
import type { Command } from 'commander';
import { flags } from '../cli/flags.js';
import { examples } from '../tool/help.js';
import { describeTool } from '../tool/tool.js';

export interface OptionDoc {
  /** With dashes: `-o`, `--output`. */
  readonly names: readonly string[];
  /** How its value is called; undefined where it has none. */
  readonly value: string | undefined;
  readonly text: string;
  readonly choices: readonly string[];
  /** Whether the value is the name of a file. */
  readonly file: boolean;
}

export interface CommandDoc {
  /** All words, the program's name first. */
  readonly words: readonly string[];
  readonly text: string;
  /** As in the synopsis: `<subnet>`, `[target...]`. */
  readonly arguments: readonly { readonly synopsis: string; readonly text: string }[];
  readonly options: readonly OptionDoc[];
  /** Options that are accepted and not shown by the command's own `--help`. */
  readonly hidden: readonly OptionDoc[];
  readonly examples: readonly string[];
  readonly commands: readonly CommandDoc[];
}

export function toolDoc(name: 'tartan' | 'subnet-lease'): CommandDoc {
  const lead = name === 'subnet-lease' ? ['lease'] : [];
  return describe(describeTool(name), [name], lead);
}

/** @param lead the words that the program's name stands for in the table of examples */
function describe(command: Command, words: readonly string[], lead: readonly string[]): CommandDoc {
  const path = [...lead, ...words.slice(1)].join(' ');
  const own = (examples[path] ?? []).map(line =>
    [words[0], line.slice(lead.join(' ').length)].join(lead.length > 0 ? '' : ' '),
  );
  const help: OptionDoc = {
    names: ['-h', '--help'],
    value: undefined,
    text: 'print this help',
    choices: [],
    file: false,
  };
  return {
    words,
    text: command.description(),
    arguments: command.registeredArguments.map(argument => ({
      synopsis: `${argument.required ? '<' : '['}${argument.name()}${argument.variadic ? '...' : ''}${argument.required ? '>' : ']'}`,
      text: argument.description,
    })),
    options: [...command.options.filter(option => !option.hidden).map(describeOption), help],
    hidden: command.options.filter(option => option.hidden).map(describeOption),
    examples: own,
    commands: command.commands.map(child => describe(child, [...words, child.name()], lead)),
  };
}

function describeOption(option: Command['options'][number]): OptionDoc {
  const value = /[<[]([^>\]]+)[>\]]/.exec(option.flags)?.[1];
  return {
    names: [option.short, option.long].filter(name => name !== undefined && name !== null),
    value,
    text: option.description,
    choices: option.argChoices ?? [],
    file: value !== undefined && /file|path|dir|document/i.test(value),
  };
}

/** tartand as a command: its flags stand in a table of their own, since they are flannel's too. */
export function daemonDoc(): CommandDoc {
  return {
    words: ['tartand'],
    text: 'The overlay network daemon: leases a subnet from etcd and carries container traffic to the other hosts',
    arguments: [],
    options: flags
      .filter(flag => flag.disposition.kind === 'works')
      .map(flag => ({
        names: [`--${flag.name}`],
        value: flag.kind === 'boolean' ? undefined : flag.value,
        text: `${flag.help}${flag.fallback === '' || flag.fallback === 'false' ? '' : ` (default ${flag.fallback})`}`,
        choices: [],
        file: flag.kind === 'path',
      })),
    hidden: [],
    examples: ['tartand --etcd-endpoints http://192.0.2.254:2379 --ip-masq'],
    commands: [],
  };
}
