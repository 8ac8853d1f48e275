// Shows the document of this service, without the bar on top, which is for those of others. No
// validator: it would be asked over the network, with the document's address.
SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#swagger-ui",
  deepLinking: true,
  layout: "BaseLayout",
  presets: [SwaggerUIBundle.presets.apis],
  validatorUrl: null,
});
