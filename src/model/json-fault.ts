/** Says where a text stops being JSON, in words that lead there: line, column, what stands there, what is expected. */
import { parse, printParseErrorCode, type ParseError } from 'jsonc-parser';

/** By the names of the reader's errors. */
const expectations: Readonly<Record<string, string>> = {
  PropertyNameExpected: 'the name of a member in double quotes',
  ValueExpected: 'a value',
  ColonExpected: "':' and a value",
  CommaExpected: "',' or the end",
  CloseBraceExpected: "'}'",
  CloseBracketExpected: "']'",
  EndOfFileExpected: 'nothing more',
  InvalidCommentToken: 'no comment, which JSON has not',
  UnexpectedEndOfString: 'the closing quote of the text',
  UnexpectedEndOfNumber: 'a digit',
  InvalidUnicode: 'four hexadecimal digits after \\u',
  InvalidEscapeCharacter: 'one of "\\/bfnrtu after a backslash',
  InvalidCharacter: 'a control character written as \\u00..',
};

/** @param text that JSON.parse refuses */
export function describeJsonFault(text: string): string {
  if (text.trim() === '') return 'it is empty';
  if (/^(\ufeff|\u00ef\u00bb\u00bf)/.test(text))
    return 'it begins with a byte order mark: save it as UTF-8 without one';
  if (/^.?\0|^\ufffd|^\u00ff\u00fe/.test(text)) return 'it is not in UTF-8 (UTF-16?): save it as UTF-8';
  const errors: ParseError[] = [];
  parse(text, errors, { allowTrailingComma: false, disallowComments: true });
  const [first] = errors;
  if (first === undefined) return 'check it with a JSON tool';
  return describeAt(text, first);
}

function describeAt(text: string, { error, offset }: ParseError): string {
  const before = text.slice(0, offset).trimEnd();
  const found = text.slice(offset).trimStart();
  const comma = before.endsWith(',') && /^[}\],]/.test(found);
  // The reader names the end of what it could not read; the comma before is where a person looks.
  const at = comma ? before.length - 1 : text.length - found.length;
  const line = text.slice(0, at).split('\n');
  const place = `line ${line.length}, column ${(line.at(-1)?.length ?? 0) + 1}`;
  if (comma) return `${place}: a comma too many before '${found.slice(0, 1)}'`;
  const expected = expectations[printParseErrorCode(error)] ?? 'a value, or a name in double quotes';
  return `${place}: ${describeFound(text.slice(at))}, expected ${expected}`;
}

function describeFound(rest: string): string {
  if (rest === '') return 'the text ends';
  if (rest.startsWith('\\')) return "a backslash '\\' stands there (one at a line end is a shell's, not JSON's)";
  const word = /^(?:[\w.+-]+|[^]?)/u.exec(rest)?.[0] ?? '';
  return `'${word.slice(0, 20).replace(/[^\x20-\x7e]/g, '?')}' stands there`;
}
