import { LabIcon } from '@jupyterlab/ui-components';
import swiftSvg from '../style/icons/swift.svg';

/** A speech bubble with a bolt: the icon of the sidebar. */
export const swiftIcon = new LabIcon({
  name: 'swift-jupyter:icon',
  svgstr: swiftSvg
});
