// What @jupyterlab and @lumino expect of a browser and jsdom lacks.
const { TestEnvironment } = require('jest-environment-jsdom');

module.exports = class extends TestEnvironment {
  async setup() {
    await super.setup();
    const { MouseEvent } = this.global;
    Object.assign(this.global, {
      DragEvent: class extends MouseEvent {},
      ResizeObserver: class {
        observe() {}
        unobserve() {}
        disconnect() {}
      },
      IntersectionObserver: class {
        observe() {}
        unobserve() {}
        disconnect() {}
      },
      matchMedia: () => ({
        matches: false,
        addListener() {},
        addEventListener() {}
      }),
      requestIdleCallback: callback => setTimeout(callback, 0),
      fetch,
      Headers,
      Request,
      Response,
      TextEncoder,
      TextDecoder,
      structuredClone
    });
  }
};
