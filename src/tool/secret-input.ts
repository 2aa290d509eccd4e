/** Reads one line that nobody may see: from the terminal without an echo, else all of standard input. */
import { text } from 'node:stream/consumers';
import { exitStatus, ToolError } from './error.js';

const mostBytes = 65_536;

/** @param prompt goes to standard error */
export async function readSecret(prompt: string): Promise<string> {
  const { stdin, stderr } = process;
  if (!stdin.isTTY) return (await text(stdin)).slice(0, mostBytes);
  // Raw: the terminal neither shows it nor cuts it at 4096 characters. Before the prompt, after which it is typed.
  stdin.setRawMode(true);
  stdin.setEncoding('utf8');
  stderr.write(prompt);
  try {
    let line = '';
    for await (const piece of stdin)
      for (const character of String(piece)) {
        if (character === '\r' || character === '\n') return line;
        if (character === '\u0003' || character === '\u0004')
          throw new ToolError(exitStatus.error, 'interrupted, nothing was changed', 'run it again');
        line =
          character === '\u007f' || character === '\b' ? line.slice(0, -1) : (line + character).slice(0, mostBytes);
      }
    return line;
  } finally {
    stdin.setRawMode(false);
    stderr.write('\n');
  }
}
