import { attachCell, downloadCell, fitsOnALine, inferCell } from '../snippets';
import { aRun } from './fakes';

it.each([
  ['Qwen/Qwen2.5-0.5B-Instruct', 'Qwen/Qwen2.5-0.5B-Instruct'],
  ['我的/模型', '我的/模型'],
  ['two words', '"two words"'],
  ['say "hi"', '"say \\"hi\\""'],
  ['back\\slash', '"back\\\\slash"'],
  ['$home', '"$home"']
])('writes %j as the argument %j', (name, argument) => {
  expect(downloadCell(name)).toBe(`%swift download ${argument}`);
});

it('gives the infer cell a body, which IPython demands', () => {
  const [line, ...body] = inferCell('org/tiny').split('\n');

  expect(line).toBe('%%swift infer --model org/tiny');
  expect(body.join('').trim()).not.toBe('');
});

it('attaches by id', () => {
  expect(attachCell(aRun({ id: 'v3-x' }))).toBe('%swift runs attach v3-x');
});

it.each(['a\nb', 'a\rb', 'a\u2028b', '', 'a\u0000b'])(
  'refuses the name %j',
  name => {
    expect(fitsOnALine(name)).toBe(false);
    expect(() => downloadCell(name)).toThrow(RangeError);
  }
);
