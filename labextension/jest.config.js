// @jupyterlab and @lumino publish ES modules, so they go through swc as well.
const esModules = [
  '@codemirror',
  '@jupyter',
  '@jupyterlab',
  '@lezer',
  '@lumino',
  '@marijn',
  '@microsoft',
  'crelt',
  'delay',
  'exenv-es6',
  'lib0',
  'nanoid',
  'style-mod',
  'w3c-keyname',
  'y-protocols',
  'yjs'
];

const swc = {
  jsc: {
    parser: { syntax: 'typescript', tsx: true },
    target: 'es2022',
    transform: { react: { runtime: 'classic' } }
  },
  module: { type: 'commonjs' }
};

module.exports = {
  testEnvironment: '<rootDir>/jest.env.js',
  testMatch: ['<rootDir>/src/**/__tests__/**/*.spec.ts?(x)'],
  transform: { '\\.[cm]?[jt]sx?$': ['@swc/jest', swc] },
  transformIgnorePatterns: [`/node_modules/(?!(${esModules.join('|')})/)`],
  moduleNameMapper: { '\\.(css|svg)$': '<rootDir>/jest.stub.js' }
};
