// Stands for an imported .css or .svg; LabIcon refuses an empty string.
module.exports = '<svg xmlns="http://www.w3.org/2000/svg"></svg>';
