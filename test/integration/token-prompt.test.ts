/** `tartan join -` at a real terminal: the token is asked for, and is nowhere to be seen. */
import { expect, test } from 'vitest';
import { attempt, toolProgram, type Outcome } from '../support/tools.js';

/** Types its first argument into the command of the others as soon as that prompts; prints what the terminal shows. */
const terminal = `
import os, pty, sys
typed, command = sys.argv[1], sys.argv[2:]
pid, screen = pty.fork()
if pid == 0: os.execvp(command[0], command)
shown, isTyped = b'', False
while True:
    try: piece = os.read(screen, 4096)
    except OSError: break
    if not piece: break
    shown += piece
    if not isTyped and b'token: ' in shown:
        os.write(screen, typed.encode())
        isTyped = True
print(shown.decode())
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
`;

function typeToken(typed: string): Promise<Outcome> {
  return attempt(['python3', '-c', terminal, typed, process.execPath, toolProgram, 'join', '-']);
}

test('a token is asked for and not shown; a wrong one is refused without a word of it', async () => {
  // The words after a typing error that was taken back.
  const { status, stdout } = await typeToken(`x\u007ftartan1.${'hunter2'.repeat(800)}.12345678\r`);
  expect(stdout).toMatch(/token: /);
  expect(stdout).toMatch(/the token cannot be used: its check sum is wrong/);
  expect(stdout).not.toContain('hunter2');
  expect(status).toBe(64);
});

test('Ctrl-C ends it, and nothing was changed', async () => {
  const { status, stdout } = await typeToken('tartan1.hunter2\u0003');
  expect(stdout).toMatch(/interrupted, nothing was changed/);
  expect(stdout).not.toContain('hunter2');
  expect(status).toBe(1);
});
